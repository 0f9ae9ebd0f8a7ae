// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

// What is proposed for a denied flow, done to the objects, allows the flow: by the oracle, and by the programs
// that explanations come from.
func TestWhatIsProposedAllowsTheFlow(t *testing.T) {
	done := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		snap := named(gen.Snapshot(t))
		c := explain.New(snap)
		for _, q := range questions(t, snap) {
			e, err := c.Explain(q.flow)
			if err != nil {
				t.Fatal(err)
			}
			if e.Allowed || e.Egress.Cause == explain.Contested || e.Ingress.Cause == explain.Contested {
				continue
			}
			edit := &editor{t: t, snap: snap, done: done}
			for _, side := range []explain.Side{e.Egress, e.Ingress} {
				if side.Change != "" {
					edit.change(side.Change)
				}
			}
			if edit.outside {
				continue
			}
			if got := oracle.Judge(edit.snap, q.oracle); !got.Allowed {
				t.Fatalf("%s\nis denied also after\n%s\n%s\nthe oracle: %s", e, e.Egress.Change, e.Ingress.Change, got)
			}
			after, err := explain.New(edit.snap).Explain(q.flow)
			if err != nil || !after.Allowed {
				t.Fatalf("%s\nis denied also after\n%s\n%s\nit is now: %s %v", e, e.Egress.Change, e.Ingress.Change, after, err)
			}
		}
	})
	t.Log(done) // with -rapid.checks=20000 each of "set", "narrow" and "give" is there more than a hundred times
	for _, verb := range []string{"add item", "add port", "add rule"} {
		if done[verb] == 0 {
			t.Errorf("nothing was proposed with %q: %v", verb, done)
		}
	}
}

// named has all namespaces of pods, and gives each the label with its name, as the API server does.
func named(s *cluster.Snapshot) *cluster.Snapshot {
	c := *s
	c.Namespaces = nil
	for _, n := range s.Namespaces {
		l := map[string]string{"kubernetes.io/metadata.name": n.Name}
		for _, e := range n.Labels {
			l[e.Key] = e.Value
		}
		labelled := *n
		labelled.Labels = cluster.NewLabels(l)
		c.Namespaces = append(c.Namespaces, &labelled)
	}
	for _, p := range s.Pods {
		if !slices.ContainsFunc(c.Namespaces, func(n *cluster.Namespace) bool { return n.Name == p.Key.Namespace }) {
			c.Namespaces = append(c.Namespaces, &cluster.Namespace{Name: p.Key.Namespace,
				Labels: cluster.NewLabels(map[string]string{"kubernetes.io/metadata.name": p.Key.Namespace})})
		}
	}
	return &c
}

// editor does what is proposed, as somebody does who reads it.
type editor struct {
	t       *rapid.T
	snap    *cluster.Snapshot
	done    map[string]int // by what was done
	outside bool           // what is to be done is for the author to say: what was not understood means more
}

var (
	ofPolicy = regexp.MustCompile(`^(.*) \((\S+/\S+)\)$`)
	addRule  = regexp.MustCompile(`^add a rule to spec\.(\w+) of (\S+): its policies have none$`)
	addItem  = regexp.MustCompile(`^add (\{.*\}) next to (spec\S+)$`)
	addPort  = regexp.MustCompile(`^add (\{.*\}) to (spec\S+)\.ports$`)
	setValue = regexp.MustCompile(`^set (\S+) of (spec\S+)\.(podSelector|namespaceSelector) to (".*")$`)
	giveOne  = regexp.MustCompile(`^give (\S+) a label and add an item for it next to (spec\S+)$`)
	except   = regexp.MustCompile(`(spec\S+)\.ipBlock\.except\[(\d+)\]`)
	place    = regexp.MustCompile(`^spec\.(ingress|egress)\[(\d+)\](?:\.(?:from|to)\[(\d+)\])?`)
)

func (x *editor) change(text string) {
	if m := addRule.FindStringSubmatch(text); m != nil {
		x.done["add rule"]++
		p := x.policy(m[2])
		all := cluster.Rule{Peers: cluster.Peers{Any: true}, Ports: cluster.Ports{Any: true}}
		if m[1] == "egress" {
			p.Egress = append(p.Egress, all)
		} else {
			p.Ingress = append(p.Ingress, all)
		}
		return
	}
	m := ofPolicy.FindStringSubmatch(text)
	if m == nil {
		x.t.Fatalf("nobody knows what to do: %s", text)
	}
	p := x.policy(m[2])
	for _, one := range strings.Split(m[1], ", and ") {
		x.one(p, one)
	}
}

// policy returns a copy of a policy, in a copy of the snapshot.
func (x *editor) policy(name string) *cluster.Policy {
	s := *x.snap
	s.Policies = slices.Clone(s.Policies)
	x.snap = &s
	for i, old := range s.Policies {
		if old.Key.String() == name {
			p := *old
			p.Egress, p.Ingress = copied(p.Egress), copied(p.Ingress)
			s.Policies[i] = &p
			return &p
		}
	}
	x.t.Fatalf("there is no policy %s", name)
	return nil
}

func copied(rules []cluster.Rule) []cluster.Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].Peers.List, rules[i].Ports.List = slices.Clone(rules[i].Peers.List), slices.Clone(rules[i].Ports.List)
	}
	return rules
}

// at returns the rule and the position of the peer that a field is in.
func (x *editor) at(p *cluster.Policy, field string) (*cluster.Rule, int) {
	m := place.FindStringSubmatch(field)
	if m == nil {
		x.t.Fatalf("%s is no place", field)
	}
	rules := p.Ingress
	if m[1] == "egress" {
		rules = p.Egress
	}
	index, _ := strconv.Atoi(m[2])
	peer, _ := strconv.Atoi(m[3])
	i := slices.IndexFunc(rules, func(r cluster.Rule) bool { return r.Index == index })
	if i < 0 {
		x.t.Fatalf("%s is no rule of %s", field, p.Key)
	}
	return &rules[i], peer
}

func (x *editor) one(p *cluster.Policy, text string) {
	if m := addItem.FindStringSubmatch(text); m != nil {
		x.done["add item"]++
		r, _ := x.at(p, m[2])
		r.Peers.List = append(r.Peers.List, x.peer(p, m[1]))
	} else if m := giveOne.FindStringSubmatch(text); m != nil {
		x.done["give"]++
		x.label(m[1])
		r, _ := x.at(p, m[2])
		ns, _, _ := strings.Cut(m[1], "/")
		r.Peers.List = append(r.Peers.List, x.peer(p, `{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "`+ns+
			`"}}, podSelector: {matchLabels: {given: "1"}}}`))
	} else if m := addPort.FindStringSubmatch(text); m != nil {
		x.done["add port"]++
		r, _ := x.at(p, m[2])
		r.Ports.List = append(r.Ports.List, x.port(p, m[1]))
	} else if m := setValue.FindStringSubmatch(text); m != nil {
		x.done["set"]++
		r, i := x.at(p, m[2])
		x.set(&r.Peers.List[i], m[3], m[1], m[4])
	} else if strings.HasPrefix(text, "narrow ") {
		x.done["narrow"]++
		x.narrow(p, text)
	} else if strings.HasPrefix(text, "a rule without ports") || strings.HasPrefix(text, "correct the ") {
		x.outside = true
	} else {
		x.t.Fatalf("nobody knows what to do: %s", text)
	}
}

// rule reads a rule as the API server does.
func (x *editor) rule(p *cluster.Policy, text string) cluster.Rule {
	object := networkingv1.NetworkPolicy{}
	if err := yaml.UnmarshalStrict([]byte("{spec: {ingress: ["+text+"]}}"), &object); err != nil {
		x.t.Fatalf("%s: %v", text, err)
	}
	object.Namespace, object.Name = p.Key.Namespace, p.Key.Name
	got, found := convert.Policy(&object)
	if len(found) > 0 || len(got.Ingress) != 1 {
		x.t.Fatalf("%s: %v", text, found)
	}
	return got.Ingress[0]
}

func (x *editor) peer(p *cluster.Policy, item string) cluster.Peer {
	return x.rule(p, "{from: ["+item+"]}").Peers.List[0]
}

func (x *editor) port(p *cluster.Policy, item string) cluster.Port {
	return x.rule(p, "{ports: ["+item+"]}").Ports.List[0]
}

// label gives a pod the label given=1.
func (x *editor) label(pod string) {
	s := *x.snap
	s.Pods = slices.Clone(s.Pods)
	x.snap = &s
	for i, old := range s.Pods {
		if old.Key.String() == pod {
			p := *old
			p.Labels = cluster.NewLabels(map[string]string{"given": "1"})
			s.Pods[i] = &p
		}
	}
}

// set puts one value in the place of the one that a selector asks for.
func (x *editor) set(peer *cluster.Peer, selector, key, quoted string) {
	value, err := strconv.Unquote(quoted)
	if err != nil {
		x.t.Fatal(err)
	}
	s := &peer.Pods
	if selector == "namespaceSelector" {
		changed := *peer.Namespaces
		peer.Namespaces, s = &changed, &changed
	}
	parsed, err := labels.Parse(s.Text())
	if err != nil {
		x.t.Fatal(err)
	}
	wants, _ := parsed.Requirements()
	next := labels.NewSelector()
	for _, r := range wants {
		if r.Key() == key && r.Operator() != selection.NotIn && r.Operator() != selection.Exists {
			one, err := labels.NewRequirement(key, selection.In, []string{value})
			if err != nil {
				x.t.Fatal(err)
			}
			r = *one
		}
		next = next.Add(r)
	}
	*s = cluster.NewSelector(next)
}

// narrow leaves out the excepts that are named.
func (x *editor) narrow(p *cluster.Policy, text string) {
	gone := map[int]bool{}
	var r *cluster.Rule
	var peer int
	for _, m := range except.FindAllStringSubmatch(text, -1) {
		r, peer = x.at(p, m[1])
		i, _ := strconv.Atoi(m[2])
		gone[i] = true
	}
	if r == nil {
		x.t.Fatalf("nobody knows what to narrow: %s", text)
	}
	block := *r.Peers.List[peer].Block
	block.Except = slices.Clone(block.Except)
	for _, i := range slices.Backward(slices.Sorted(maps.Keys(gone))) {
		block.Except = slices.Delete(block.Except, i, i+1)
	}
	r.Peers.List[peer].Block = &block
}

// SPDX-License-Identifier: Apache-2.0

package explain_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/source/manifest"
)

// caller is a cluster in which the pod NAMESPACE/caller (10.0.0.9) has some labels.
func caller(t *testing.T, namespace string, labels map[string]string, spec string) *explain.Cluster {
	t.Helper()
	snap := read(t, podDB, "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", policy("p", spec))
	if namespace != "shop" {
		snap.Namespaces = append(snap.Namespaces, &cluster.Namespace{Name: namespace})
	}
	snap.Pods = append(snap.Pods, &cluster.Pod{Key: cluster.Key{Namespace: namespace, Name: "caller"}, Node: "one",
		Labels: cluster.NewLabels(labels), IPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}})
	return explain.New(snap)
}

// deniedBy returns the side of shop/db's ingress for a flow from the pod.
func deniedBy(t *testing.T, c *explain.Cluster, src explain.End) explain.Side {
	t.Helper()
	e, err := c.Explain(explain.Flow{Src: src, Dst: pod("shop", "db"), Protocol: inet.TCP, Port: 5432})
	if err != nil || e.Allowed {
		t.Fatalf("want a denied flow: %v %v", e, err)
	}
	return e.Ingress
}

// proposed returns the item of from that a change proposes.
func proposed(t *testing.T, change string) (peer networkingv1.NetworkPolicyPeer) {
	t.Helper()
	item, _, ok := strings.Cut(strings.TrimPrefix(change, "add "), " next to ")
	if !ok {
		t.Fatalf("no item is proposed: %s", change)
	}
	if err := yaml.UnmarshalStrict([]byte(item), &peer); err != nil {
		t.Fatalf("%s: %v", change, err)
	}
	return peer
}

const otherNamespace = `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {no: such}}}]}]}`

// YAML reads what is proposed as the labels of the peer.
func TestAProposedItemIsTheLabelsInYAML(t *testing.T) {
	values := []string{"true", "", "1e3", "1.0", "0x1f", "0o7", "1_000", "y", "N", "No", "on", "OFF", "null",
		"NULL", "~",
		"1:20", "2026-11-30", ".inf", "web", "web-1", "a.b_c", "-", "a: b", "a\nb", "\u202eb",
		"\u0085", `"`, "'", "#", "{", "<<", "="}
	for _, v := range values {
		for _, l := range []map[string]string{{"app": v}, {"y": v, "example.org/n": "x"}, {"no": "1", "on": v}} {
			got := proposed(t, deniedBy(t, caller(t, "other", l, otherNamespace), pod("other", "caller")).Change)
			if fmt.Sprint(got.PodSelector.MatchLabels) != fmt.Sprint(l) {
				t.Errorf("%q: proposed %q", l, got.PodSelector.MatchLabels)
			}
		}
	}
	for _, ns := range []string{"true", "1", "1e3", "y", "prod"} {
		l := map[string]string{"app": "web"}
		got := proposed(t, deniedBy(t, caller(t, ns, l, otherNamespace), pod(ns, "caller")).Change)
		if name := got.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"]; name != ns {
			t.Errorf("namespace %q: proposed %q", ns, name)
		}
	}
	six := explain.Flow{Src: explain.End{Addr: netip.MustParseAddr("::5")}, Dst: pod("shop", "six"),
		Protocol: inet.TCP, Port: 80}
	c := world(t, strings.NewReplacer("name: db", "name: six", "10.0.0.2", "fd00::2").Replace(podDB),
		policy("p", otherNamespace))
	e, err := c.Explain(six)
	if err != nil {
		t.Fatal(err)
	}
	if got := proposed(t, e.Ingress.Change); got.IPBlock == nil || got.IPBlock.CIDR != "::5/128" {
		t.Errorf("proposed %s", e.Ingress.Change)
	}
}

// A pod is proposed by its labels, never by its address.
func TestAPodIsNeverProposedByItsAddress(t *testing.T) {
	for _, block := range []string{"{cidr: 192.0.2.0/24}", "{cidr: 10.0.0.0/8, except: [10.0.0.0/24]}",
		"{cidr: 0.0.0.0/0, except: [10.0.0.9/32]}"} {
		spec := "{podSelector: {}, ingress: [{from: [{ipBlock: " + block + "}]}]}"
		s := deniedBy(t, caller(t, "shop", map[string]string{"app": "web"}, spec), pod("shop", "caller"))
		got := proposed(t, s.Change)
		if got.IPBlock != nil || got.PodSelector == nil || got.PodSelector.MatchLabels["app"] != "web" {
			t.Errorf("%s: %s", block, s.Change)
		}
		s = deniedBy(t, caller(t, "other", nil, spec), pod("other", "caller"))
		if !strings.HasPrefix(s.Change, "give other/caller a label") {
			t.Errorf("%s, a pod without labels: %s", block, s.Change)
		}
	}
}

func TestAllExceptsThatContainTheAddressAreNamed(t *testing.T) {
	spec := `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24,
  except: [192.0.2.8/29, 192.0.2.64/26, 192.0.2.9/32]}}]}]}`
	s := deniedBy(t, world(t, policy("p", spec)), explain.End{Addr: netip.MustParseAddr("192.0.2.9")})
	const at = "spec.ingress[0].from[0].ipBlock.except"
	want := "narrow " + at + "[0] and " + at + "[2] so that they do not contain 192.0.2.9 (shop/p)"
	if s.Change != want || len(s.Nearest.Why) != 2 {
		t.Errorf("change %q, want %q; why %q", s.Change, want, s.Nearest.Why)
	}
}

// Labels that change with the next revision are left out, unless there are no others.
func TestLabelsOfARevisionAreNotProposed(t *testing.T) {
	revision := map[string]string{"pod-template-hash": "5d", "controller-revision-hash": "x",
		"pod-template-generation":            "1",
		"statefulset.kubernetes.io/pod-name": "web-0", "apps.kubernetes.io/pod-index": "0",
		"batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/controller-uid": "u",
		"job-name": "j", "controller-uid": "u"}
	propose := func(labels map[string]string) map[string]string {
		s := deniedBy(t, caller(t, "other", labels, otherNamespace), pod("other", "caller"))
		return proposed(t, s.Change).PodSelector.MatchLabels
	}
	for k, v := range revision {
		if l := propose(map[string]string{"app": "web", k: v}); len(l) != 1 || l["app"] != "web" {
			t.Errorf("%s: proposed %v", k, l)
		}
		if l := propose(map[string]string{k: v}); len(l) != 1 || l[k] != v {
			t.Errorf("%s alone: proposed %v", k, l)
		}
	}
}

// A rule for everybody with another port does not come before the rule that was meant.
func TestARuleForEverybodyIsNotNearest(t *testing.T) {
	const meant = `{from: [{podSelector: {matchLabels: {app: webb}}}], ports: [{port: 5432}]}`
	for _, tt := range []struct{ name, broad, nearest string }{
		{"every namespace", `{from: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}`, "spec.ingress[1]"},
		{"every address", `{from: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 53, protocol: UDP}]}`, "spec.ingress[1]"},
		{"no peers", `{ports: [{port: 53, protocol: UDP}]}`, "spec.ingress[1]"},
		{"some pods of every namespace",
			`{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}], ports: [{port: 53}]}`,
			"spec.ingress[0]"},
		{"every pod of the namespace", `{from: [{podSelector: {}}, {namespaceSelector: {}}], ports: [{port: 53}]}`,
			"spec.ingress[0]"},
	} {
		c := world(t, policy("p", "{podSelector: {}, ingress: ["+tt.broad+", "+meant+"]}"))
		s := deniedBy(t, c, pod("shop", "web"))
		if s.Nearest.Path != tt.nearest {
			t.Errorf("%s: nearest %s, want %s; %s", tt.name, s.Nearest.Path, tt.nearest, s.Change)
		}
	}
}

// Where a part of a policy was not understood, the change is to correct it.
func TestAFaultOfAPolicyIsTheChange(t *testing.T) {
	for _, tt := range []struct{ name, spec, change string }{
		{"podSelector", `{podSelecter: {}, ingress: [{from: [{podSelector: {}}]}]}`, "correct spec.podSelecter of shop/p"},
		{"from", `{podSelector: {}, ingress: [{form: [{podSelector: {}}]}]}`, "correct spec.ingress[0].form (shop/p)"},
		{"ports", `{podSelector: {}, ingress: [{from: [{podSelector: {}}], prots: [{port: 80}]}]}`,
			"correct spec.ingress[0].prots (shop/p)"},
		{"a peer", `{podSelector: {}, ingress: [{from: [{podSelecter: {}}]}]}`,
			"correct spec.ingress[0].from[0].podSelecter (shop/p)"},
		{"a port", `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{prot: 5432}]}]}`,
			"correct spec.ingress[0].ports[0].prot (shop/p)"},
		{"the other direction", `{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ot: []}]}`,
			"add a rule to spec.ingress of shop/p: its policies have none"},
	} {
		r, err := manifest.Parse("cluster.yaml", []byte(strings.Join([]string{podDB,
			strings.NewReplacer("db", "web", "10.0.0.2", "10.0.0.1").Replace(podDB), policy("p", tt.spec)}, "---\n")))
		if err != nil {
			t.Fatal(err)
		}
		snap := &cluster.Snapshot{Namespaces: r.Namespaces, Pods: r.Pods, Policies: r.Policies}
		blind := deniedBy(t, explain.New(snap), pod("shop", "web"))
		c := explain.New(snap)
		c.Report(r.Diagnostics)
		c.Report(r.Diagnostics) // twice is once
		s := deniedBy(t, c, pod("shop", "web"))
		found := 0
		if strings.HasPrefix(tt.change, "correct") {
			found = 1
		}
		if s.Change != tt.change || len(s.Findings) != found {
			t.Errorf("%s: change %q, want %q; findings %v", tt.name, s.Change, tt.change, s.Findings)
		}
		if strings.Contains(blind.Change, "mend") {
			t.Errorf("%s, without diagnostics: %q", tt.name, blind.Change)
		}
	}
}

// Names and labels cannot write lines of their own, nor turn the direction of the text.
func TestTextsHaveNoControlCharacters(t *testing.T) {
	const evil = "a\n  allowed\r\x1b[2J\u0085\u009b\u202eb"
	labels := map[string]string{evil: evil, "app": evil}
	for _, spec := range []string{otherNamespace,
		`{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}]}]}`,
		`{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: x}]}]}`,
		`{podSelector: {matchLabels: {app: x}}}`} {
		c := caller(t, "shop", labels, spec)
		e, err := c.Explain(explain.Flow{Src: pod("shop", "caller"), Dst: pod("shop", "db"), Protocol: inet.TCP, Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		i, err := c.Isolation(cluster.Key{Namespace: "shop", Name: "caller"})
		if err != nil {
			t.Fatal(err)
		}
		texts := append([]string{e.Egress.Change, e.Ingress.Change}, strings.Split(e.String()+i.String(), "\n")...)
		if e.Ingress.Nearest != nil {
			texts = append(texts, e.Ingress.Nearest.Why...)
		}
		for _, o := range i.Ingress.Others {
			texts = append(texts, o.Why)
		}
		for _, text := range texts {
			hidden := strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
			if hidden || strings.HasPrefix(text, "  allowed") {
				t.Errorf("%s: %q", spec, text)
			}
		}
	}
}

// Two containers may give one name to different ports: the rule means both.
func TestANameOfTwoPortsMatchesBoth(t *testing.T) {
	two := strings.NewReplacer("name: db", "name: two", "10.0.0.2", "10.0.0.4", "containerPort: 5432}]}",
		"containerPort: 81}]}, {name: d, image: i, ports: [{name: sql, containerPort: 80}]}").Replace(podDB)
	c := world(t, two, policy("p", `{podSelector: {}, policyTypes: [Egress], egress: [
  {to: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 1}]},
  {to: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 2}, {port: sql}]}]}`))
	e, err := c.Explain(explain.Flow{Src: pod("shop", "web"), Dst: pod("shop", "two"), Protocol: inet.TCP, Port: 80})
	if err != nil || e.Allowed {
		t.Fatal(e, err)
	}
	if n := e.Egress.Nearest; !n.PortMatches || n.Path != "spec.egress[1]" {
		t.Errorf("nearest %+v", n)
	}
}

// A rule that one label misses is nearer than one that two labels miss, also if that comes first.
func TestOneWrongLabelIsNearerThanTwo(t *testing.T) {
	rule := func(labels string) string {
		return "{from: [{podSelector: {matchLabels: {" + labels + "}}}]}"
	}
	spec := "{podSelector: {}, ingress: [" + rule("app: a, tier: b") + ", " + rule("app: web, tier: b") + "]}"
	s := deniedBy(t, caller(t, "shop", map[string]string{"app": "web"}, spec), pod("shop", "caller"))
	if s.Nearest == nil || s.Nearest.Path != "spec.ingress[1]" {
		t.Errorf("nearest is %+v", s.Nearest)
	}
}

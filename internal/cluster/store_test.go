// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"
)

func pod(name, ip string) *Pod {
	p := &Pod{Key: Key{"shop", name}}
	if ip != "" {
		p.IPs = []netip.Addr{netip.MustParseAddr(ip)}
	}
	return p
}

func namespace(name, team string) *Namespace {
	return &Namespace{Name: name, Labels: NewLabels(map[string]string{"team": team})}
}

func policy(name string, ingress bool) *Policy {
	return &Policy{Key: Key{"shop", name}, Subject: Everything(), IsolatesIngress: ingress}
}

// changes says what the changes of pods are: old and new address.
func changes(d Delta) []string {
	var list []string
	for _, c := range d.Pods {
		list = append(list, address(c.Old)+" -> "+address(c.New))
	}
	slices.Sort(list)
	return list
}

func address(p *Pod) string {
	if p == nil {
		return "none"
	}
	return p.Key.Name + " " + p.IPs[0].String()
}

func TestSeveralChangesBetweenTwoTakesAreOne(t *testing.T) {
	a1, a2, a3, b1 := pod("a", "10.0.0.1"), pod("a", "10.0.0.2"), pod("a", "10.0.0.3"), pod("b", "10.0.0.9")
	key := a1.Key
	tests := []struct {
		name   string
		before []*Pod
		steps  []func(*Tx)
		want   []string
	}{
		{"a new pod", nil, []func(*Tx){set(a1)}, []string{"none -> a 10.0.0.1"}},
		{"a new pod that changed at once", nil, []func(*Tx){set(a1), set(a2)}, []string{"none -> a 10.0.0.2"}},
		{"from the first old value to the last new one", []*Pod{a1}, []func(*Tx){set(a2), set(a3)},
			[]string{"a 10.0.0.1 -> a 10.0.0.3"}},
		{"there and back again is no change", []*Pod{a1}, []func(*Tx){set(a2), set(a1)}, nil},
		{"there and back again to an equal value is no change", []*Pod{a1},
			[]func(*Tx){set(a2), set(pod("a", "10.0.0.1"))}, nil},
		{"came and went is no change", nil, []func(*Tx){set(a1), remove(key)}, nil},
		{"went and came back is no change", []*Pod{a1}, []func(*Tx){remove(key), set(a1)}, nil},
		{"went and came back as another", []*Pod{a1}, []func(*Tx){remove(key), set(a2)},
			[]string{"a 10.0.0.1 -> a 10.0.0.2"}},
		{"went", []*Pod{a1}, []func(*Tx){remove(key)}, []string{"a 10.0.0.1 -> none"}},
		{"an unknown one went", nil, []func(*Tx){remove(key)}, nil},
		{"an equal one is no change", []*Pod{a1}, []func(*Tx){set(pod("a", "10.0.0.1"))}, nil},
		{"a new list replaces all", []*Pod{a1}, []func(*Tx){replace(b1)}, []string{"a 10.0.0.1 -> none",
			"none -> b 10.0.0.9"}},
		{"a new list keeps what is in it", []*Pod{a1, b1}, []func(*Tx){replace(b1, a2)},
			[]string{"a 10.0.0.1 -> a 10.0.0.2"}},
		{"an equal list is no change", []*Pod{a1, b1}, []func(*Tx){replace(pod("b", "10.0.0.9"), a1)}, nil},
		{"the second of two with one key counts", nil, []func(*Tx){replace(a1, a2)}, []string{"none -> a 10.0.0.2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewStore()
			s.Update(replace(tt.before...))
			s.Take()
			for _, step := range tt.steps {
				s.Update(step)
			}
			if diff := cmp.Diff(tt.want, changes(s.Take())); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if again := changes(s.Take()); again != nil {
				t.Errorf("the next take has %v, want nothing", again)
			}
		})
	}
}

func set(p *Pod) func(*Tx)           { return func(tx *Tx) { tx.SetPod(p) } }
func remove(k Key) func(*Tx)         { return func(tx *Tx) { tx.DeletePod(k) } }
func replace(list ...*Pod) func(*Tx) { return func(tx *Tx) { tx.ReplacePods(list) } }
func inOne(list ...func(*Tx)) func(*Tx) {
	return func(tx *Tx) {
		for _, f := range list {
			f(tx)
		}
	}
}

func TestNamespacesAndPoliciesChangeLikePods(t *testing.T) {
	s := NewStore()
	s.Update(func(tx *Tx) {
		tx.SetNamespace(namespace("shop", "a"))
		tx.SetPolicy(policy("p", true))
	})
	d := s.Take()
	if len(d.Namespaces) != 1 || len(d.Policies) != 1 || d.Namespaces[0].Old != nil || d.Policies[0].Old != nil {
		t.Fatalf("delta = %+v, want one new namespace and one new policy", d)
	}
	s.Update(func(tx *Tx) {
		tx.SetNamespace(namespace("shop", "a"))
		tx.SetPolicy(policy("p", true))
	})
	if d := s.Take(); len(d.Namespaces)+len(d.Policies) != 0 {
		t.Fatalf("delta = %+v, want nothing for equal objects", d)
	}
	s.Update(func(tx *Tx) {
		tx.ReplaceNamespaces([]*Namespace{namespace("shop", "b"), namespace("new", "")})
		tx.ReplacePolicies(nil)
	})
	d = s.Take()
	if len(d.Namespaces) != 2 || len(d.Policies) != 1 || d.Policies[0].New != nil {
		t.Fatalf("delta = %+v, want a changed and a new namespace, and a deleted policy", d)
	}
	s.Update(func(tx *Tx) {
		tx.DeleteNamespace("new")
		tx.DeleteNamespace("unknown")
		tx.SetPolicy(policy("p", false))
		tx.DeletePolicy(Key{"shop", "p"})
	})
	if d := s.Take(); len(d.Namespaces) != 1 || d.Namespaces[0].New != nil || len(d.Policies) != 0 {
		t.Fatalf("delta = %+v, want one deleted namespace", d)
	}
}

func TestRevisionGrowsWithChangesOnly(t *testing.T) {
	s := NewStore()
	steps := []struct {
		name   string
		change func(*Tx)
		want   uint64
	}{
		{"nothing", func(*Tx) {}, 0},
		{"two pods in one batch", inOne(set(pod("a", "10.0.0.1")), set(pod("b", "10.0.0.2"))), 1},
		{"an equal pod", set(pod("a", "10.0.0.1")), 1},
		{"synced", func(tx *Tx) { tx.SetSynced(Pods) }, 2},
		{"synced again", func(tx *Tx) { tx.SetSynced(Pods) }, 2},
		{"a source", func(tx *Tx) { tx.SetSource("x") }, 3},
		{"the same source", func(tx *Tx) { tx.SetSource("x") }, 3},
		{"a diagnostic", func(tx *Tx) { tx.SetDiagnostics("f", []Diagnostic{{Message: "m"}}) }, 4},
		{"the same diagnostic", func(tx *Tx) { tx.SetDiagnostics("f", []Diagnostic{{Message: "m"}}) }, 4},
		{"no diagnostic", func(tx *Tx) { tx.SetDiagnostics("f", nil) }, 5},
		{"still no diagnostic", func(tx *Tx) { tx.SetDiagnostics("f", []Diagnostic{}) }, 5},
	}
	last := uint64(0)
	for _, step := range steps {
		s.Update(step.change)
		woken := false
		select {
		case <-s.Changed():
			woken = true
		default:
		}
		got := s.Take().Revision
		if got != step.want {
			t.Errorf("%s: revision = %d, want %d", step.name, got, step.want)
		}
		if woken != (got != last) {
			t.Errorf("%s: woken = %t, revision %d after %d", step.name, woken, got, last)
		}
		last = got
	}
}

func TestWakeUps(t *testing.T) {
	s := NewStore()
	awake := func() bool {
		select {
		case <-s.Changed():
			return true
		default:
			return false
		}
	}
	if awake() {
		t.Error("woken by a new store")
	}
	s.Update(func(*Tx) {})
	if awake() {
		t.Error("woken by an empty batch")
	}
	s.Update(set(pod("a", "10.0.0.1")))
	s.Update(set(pod("a", "10.0.0.2"))) // must not block
	if !awake() || awake() {
		t.Error("two changes, want one wake-up")
	}
	s.Update(set(pod("a", "10.0.0.2")))
	if awake() {
		t.Error("woken by an equal object")
	}
}

func TestKindsAreMissingUntilSynced(t *testing.T) {
	s := NewStore()
	if diff := cmp.Diff([]Kind{Namespaces, Pods, Policies, Nodes}, s.Missing()); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
	s.Update(func(tx *Tx) { tx.SetSynced(Pods) })
	if diff := cmp.Diff([]Kind{Namespaces, Policies, Nodes}, s.Missing()); diff != "" {
		t.Errorf("missing after the pods (-want +got):\n%s", diff)
	}
	s.Update(func(tx *Tx) { tx.SetSynced(Namespaces); tx.SetSynced(Policies); tx.SetSynced(Nodes) })
	if got := s.Missing(); got != nil {
		t.Errorf("missing = %v, want none", got)
	}
}

func TestSnapshotIsSortedByKey(t *testing.T) {
	s := NewStore()
	s.Update(func(tx *Tx) {
		for _, n := range []string{"c", "a", "b"} {
			tx.SetNamespace(namespace(n, ""))
			tx.SetPod(pod(n, "10.0.0.1"))
			tx.SetPolicy(policy(n, true))
		}
		tx.SetPod(&Pod{Key: Key{"a-shop", "z"}})
	})
	snap := s.Snapshot()
	var got []string
	for _, n := range snap.Namespaces {
		got = append(got, n.Name)
	}
	for _, p := range snap.Pods {
		got = append(got, p.Key.String())
	}
	for _, p := range snap.Policies {
		got = append(got, p.Key.String())
	}
	want := []string{"a", "b", "c", "a-shop/z", "shop/a", "shop/b", "shop/c", "shop/a", "shop/b", "shop/c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

func TestDiagnosticsAreSortedAndKeptByOrigin(t *testing.T) {
	s := NewStore()
	one := Diagnostic{Severity: Error, Kind: "NetworkPolicy", Object: Key{"b", "x"}, Field: "f", Message: "m"}
	two := Diagnostic{Severity: Warning, Kind: "NetworkPolicy", Object: Key{"a", "x"}, Field: "g", Message: "m",
		Cure: "c"}
	three := Diagnostic{Severity: Error, Kind: "File", Object: Key{Name: "x.yaml"}, Message: "m"}
	s.Update(func(tx *Tx) {
		tx.SetDiagnostics(one.Object, []Diagnostic{one})
		tx.SetDiagnostics(two.Object, []Diagnostic{two})
		tx.SetDiagnostics("x.yaml", []Diagnostic{three})
	})
	if diff := cmp.Diff([]Diagnostic{three, two, one}, s.Take().Diagnostics); diff != "" {
		t.Errorf("diagnostics (-want +got):\n%s", diff)
	}
	s.Update(func(tx *Tx) { tx.SetDiagnostics(one.Object, nil) })
	if diff := cmp.Diff([]Diagnostic{three, two}, s.Take().Diagnostics); diff != "" {
		t.Errorf("they are all that hold now (-want +got):\n%s", diff)
	}
	for d, want := range map[Diagnostic]string{
		one:   "error: NetworkPolicy b/x: f: m",
		two:   "warning: NetworkPolicy a/x: g: m; c",
		three: "error: File x.yaml: m",
	} {
		if d.String() != want {
			t.Errorf("text = %q, want %q", d, want)
		}
	}
}

func TestPodEqualSeesEveryField(t *testing.T) {
	base := func() *Pod {
		return &Pod{Key: Key{"a", "b"}, UID: "u", Labels: Labels{{"k", "v"}}, Node: "n",
			IPs:      []netip.Addr{netip.MustParseAddr("10.0.0.1")},
			Declared: &Declared{Ports: []NamedPort{{"http", TCP, 80}}}}
	}
	changes := map[string]func(*Pod){
		"Key":         func(p *Pod) { p.Key.Name = "c" },
		"UID":         func(p *Pod) { p.UID = "w" },
		"Labels":      func(p *Pod) { p.Labels = Labels{{"k", "w"}} },
		"Node":        func(p *Pod) { p.Node = "m" },
		"IPs":         func(p *Pod) { p.IPs = nil },
		"Declared":    func(p *Pod) { p.Declared = &Declared{Ports: []NamedPort{{"http", UDP, 80}}} },
		"HostNetwork": func(p *Pod) { p.HostNetwork = true },
		"Finished":    func(p *Pod) { p.Finished = true },
		"Terminating": func(p *Pod) { p.Terminating = true },
	}
	if !base().Equal(base()) {
		t.Fatal("equal pods are not equal")
	}
	if base().Equal(nil) || !(*Pod)(nil).Equal(nil) {
		t.Error("no pod equals only no pod")
	}
	for name, change := range changes {
		p := base()
		change(p)
		if p.Equal(base()) || base().Equal(p) {
			t.Errorf("a pod with another %s is equal", name)
		}
	}
	if fields := podFields(); !slices.Equal(fields, sortedKeys(changes)) {
		t.Errorf("fields of Pod are %v; the test knows %v", fields, sortedKeys(changes))
	}
}

func TestTheZeroSelectorMatchesNothing(t *testing.T) {
	parsed, err := labels.Parse("team=a")
	if err != nil {
		t.Fatal(err)
	}
	a := NewLabels(map[string]string{"team": "a", "app": "x"})
	tests := []struct {
		name           string
		s              Selector
		matches, empty bool // of a, of no labels
		text           string
	}{
		{"zero", Selector{}, false, false, "none"},
		{"everything", Everything(), true, true, "all"},
		{"parsed", NewSelector(parsed), true, false, "team=a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.Matches(a); got != tt.matches {
				t.Errorf("matches %s = %t", a, got)
			}
			if got := tt.s.Matches(nil); got != tt.empty {
				t.Errorf("matches no labels = %t", got)
			}
			if got := tt.s.String(); got != tt.text {
				t.Errorf("text = %q, want %q", got, tt.text)
			}
		})
	}
	if (Selector{}).Text() == Everything().Text() {
		t.Error("no selector and the empty selector have the same text")
	}
}

// Whoever takes the changes keeps what it was given. After a pod went there and
// back, the next change must name that very value as the old one.
func TestAfterThereAndBackTheNextChangeNamesTheValueThatWasGiven(t *testing.T) {
	first := pod("a", "10.0.0.1")
	s := NewStore()
	s.Update(set(first))
	s.Take()
	s.Update(set(pod("a", "10.0.0.2")))
	s.Update(set(pod("a", "10.0.0.1")))
	s.Take()
	s.Update(remove(first.Key))
	if d := s.Take(); len(d.Pods) != 1 || d.Pods[0].Old != first {
		t.Errorf("changes %v, want the removal of the value that was given first", changes(d))
	}
}

// A heartbeat of a Node changes nothing that is kept of it.
func TestNodesAreComparedByWhatIsKept(t *testing.T) {
	s := NewStore()
	node := func(addr string) *Node { return &Node{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr(addr)}} }
	s.Update(func(tx *Tx) { tx.ReplaceNodes([]*Node{node("192.0.2.1")}) })
	<-s.Changed()
	first := s.Take()
	if len(first.Nodes) != 1 || first.Nodes[0].New.Name != "n1" {
		t.Fatalf("the first delta has the nodes %v", first.Nodes)
	}
	s.Update(func(tx *Tx) { tx.SetNode(node("192.0.2.1")) })
	select {
	case <-s.Changed():
		t.Error("an equal Node wakes the reader")
	default:
	}
	if r := s.Take().Revision; r != first.Revision {
		t.Errorf("an equal Node makes revision %d of %d", r, first.Revision)
	}
	s.Update(func(tx *Tx) { tx.SetNode(node("192.0.2.2")) })
	if got := s.Take().Nodes; len(got) != 1 || s.Node("n1").Addrs[0] != got[0].New.Addrs[0] {
		t.Errorf("the change of an address is %v", got)
	}
	s.Update(func(tx *Tx) { tx.DeleteNode("n1") })
	if s.Node("n1") != nil || len(s.Nodes()) != 0 {
		t.Error("a deleted Node is there")
	}
}

func TestNoPodHasANodesAddress(t *testing.T) {
	s := NewStore()
	ips := func() int { return len(s.Snapshot().Pods[0].IPs) }
	s.Update(set(pod("liar", "192.0.2.1")))
	if ips() != 1 {
		t.Fatal("without a Node the address is gone")
	}
	s.Update(func(tx *Tx) { tx.SetNode(&Node{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}) })
	if d := s.Take().Diagnostics; ips() != 0 || len(d) != 1 || !strings.Contains(d[0].Message,
		"192.0.2.1 is an address of Node n1") {
		t.Errorf("the pod has %d addresses, diagnostics %v", ips(), d)
	}
	s.Update(func(tx *Tx) { tx.ReplaceNodes(nil) })
	if ips() != 1 {
		t.Error("the Node is gone and its address is still reserved")
	}
}

// The version of the policies is that of a revision only while nothing has changed since; to hear of one is
// no change.
func TestTheVersionOfPoliciesBelongsToARevision(t *testing.T) {
	s := NewStore()
	s.Update(func(tx *Tx) {
		tx.SetPolicy(&Policy{Key: Key{Namespace: "a", Name: "p"}})
		tx.HeardPolicies("5")
	})
	first := s.Take()
	s.Update(func(tx *Tx) { tx.HeardPolicies("6") })
	if version, ok := s.PolicyVersion(first.Revision); version != "6" || !ok || first.PolicyVersion != "5" {
		t.Errorf("version %q, %t; taken with %q", version, ok, first.PolicyVersion)
	}
	s.Update(func(tx *Tx) {
		tx.SetNamespace(&Namespace{Name: "a"})
		tx.HeardPolicies("7")
	})
	if _, ok := s.PolicyVersion(first.Revision); ok {
		t.Error("the version of a later revision counts for the first one")
	}
	if d := s.Take(); d.PolicyVersion != "7" {
		t.Errorf("then %q is taken", d.PolicyVersion)
	}
}

// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// patience is far above what each of these tests takes (a second at most).
const patience = 20 * time.Second

// oneSubject is a cluster with one open pod on node "one".
func oneSubject(pods ...*cluster.Pod) *cluster.Snapshot {
	return &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}, Pods: append([]*cluster.Pod{
		{Key: cluster.Key{Namespace: "shop", Name: "web"}, Node: "one",
			IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}, pods...)}
}

// listed is a policy of the whole namespace that allows the blocks.
func listed(name string, blocks ...string) *networkingv1.NetworkPolicy {
	var peers []networkingv1.NetworkPolicyPeer
	for _, b := range blocks {
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: b}})
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers}}
	return np
}

// every returns n blocks of two addresses, no two of which can be joined.
func every(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("20.%d.%d.%d/31", i>>14, i>>6&255, i<<2&255))
	}
	return list
}

func compiled(snap *cluster.Snapshot, list ...*networkingv1.NetworkPolicy) *program.Program {
	return compile.Program(policy.Resolve(withPolicies(snap, list), "one"), compile.Options{})
}

func quickly(t *testing.T, since time.Time) {
	t.Helper()
	if took := time.Since(since); took > patience {
		t.Errorf("it took %s", took)
	}
}

// rulesOf returns the rules of the only pod's ingress chain.
func rulesOf(t *testing.T, p *program.Program) []program.Rule {
	t.Helper()
	c := p.Chain(p.Pods[0].Ingress)
	if c == nil {
		t.Fatalf("the pod is open:\n%s", p)
	}
	return c.Rules
}

func TestTenThousandBlocksOfAPolicyAreOneRule(t *testing.T) {
	start := time.Now()
	blocks := every(10_000)
	p := compiled(oneSubject(), listed("p", blocks...))
	if rules := rulesOf(t, p); len(rules) != 1 || len(p.Sets) != 1 || len(p.Sets[0].Ranges) != len(blocks) {
		t.Fatalf("%d rules, %d sets, want one of each", len(rules), len(p.Sets))
	}
	f := program.Flow{Protocol: inet.TCP, Dst: p.Pods[0].Addr, DstPort: 80}
	for i := 0; i < 10_000*4; i += 37 { // two of four addresses are listed
		f.Src = netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		if want := i%4 < 2; (program.Eval(p, f) == program.Accept) != want {
			t.Fatalf("%s is allowed: %t", f.Src, !want)
		}
	}
	quickly(t, start)
}

// One block more or less is a new set, since the set is named after what it
// holds. That costs the list once, and nothing that grows faster.
func TestChangingOneOfTenThousandBlocksSendsTheListOnce(t *testing.T) {
	start := time.Now()
	blocks := every(10_000)
	var actual *nft.Table
	for i := range 5 {
		now := slices.Delete(slices.Clone(blocks), 100*i, 100*i+1)
		desired := ruleset.Render(compiled(oneSubject(), listed("p", now...)), program.Node{})
		ops, sent := nft.Diff(actual, desired), 0
		for _, op := range ops {
			sent += op.Elements()
		}
		// The old set goes as a whole; a few elements are the pod's.
		if sent < len(now) || sent > len(now)+10 {
			t.Errorf("change %d sends %d elements for a list of %d", i, sent, len(now))
		}
		actual = desired
	}
	quickly(t, start)
}

func TestABlockOfFiveHundredPoliciesIsOneRule(t *testing.T) {
	start := time.Now()
	var list []*networkingv1.NetworkPolicy
	for i := range 500 {
		list = append(list, listed(fmt.Sprintf("p-%03d", i), "198.51.100.0/24"))
	}
	p := compiled(oneSubject(), list...)
	if rules := rulesOf(t, p); len(rules) != 1 {
		t.Errorf("%d rules, want 1", len(rules))
	}
	// All but one go: what the last one allows stays.
	f := program.Flow{Protocol: inet.TCP, Src: netip.MustParseAddr("198.51.100.7"), Dst: p.Pods[0].Addr, DstPort: 80}
	for _, rest := range [][]*networkingv1.NetworkPolicy{list, list[1:], list[499:]} {
		if got := program.Eval(compiled(oneSubject(), rest...), f); got != program.Accept {
			t.Errorf("with %d policies: %s", len(rest), got)
		}
	}
	quickly(t, start)
}

// Long lists that many policies share are one set, however they are written.
func TestOneListOfManyPoliciesIsOneSet(t *testing.T) {
	start := time.Now()
	blocks := every(500)
	var list []*networkingv1.NetworkPolicy
	for i := range 20 {
		blocks = append(blocks[1:], blocks[0])
		list = append(list, listed(fmt.Sprintf("p-%02d", i), blocks...))
	}
	p := compiled(oneSubject(), list...)
	if rules := rulesOf(t, p); len(p.Sets) != 1 || len(rules) != 1 {
		t.Errorf("%d sets and %d rules, want one of each", len(p.Sets), len(rules))
	}
	quickly(t, start)
}

// A selector is one set, however many labels, expressions and values it has:
// nobody writes out the combinations.
func TestALongSelectorIsOneSet(t *testing.T) {
	s := &metav1.LabelSelector{MatchLabels: map[string]string{}}
	all := map[string]string{}
	for i := range 20 {
		key := fmt.Sprintf("l%d", i)
		s.MatchLabels[key], all[key] = "x", "x"
		e := metav1.LabelSelectorRequirement{Key: fmt.Sprintf("e%d", i), Operator: metav1.LabelSelectorOpIn}
		for v := range 50 {
			e.Values = append(e.Values, fmt.Sprintf("v%d", v))
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
		all[e.Key] = "v49"
	}
	np := listed("p")
	number := intstr.FromInt32(80)
	np.Spec.Ingress[0].From = []networkingv1.NetworkPolicyPeer{{PodSelector: s}}
	np.Spec.Ingress[0].Ports = []networkingv1.NetworkPolicyPort{{Port: &number}}
	peer := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: "peer"}, Node: "two", Labels: cluster.NewLabels(all),
		IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
	delete(all, "l7")
	stranger := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: "stranger"}, Node: "two",
		Labels: cluster.NewLabels(all), IPs: []netip.Addr{netip.MustParseAddr("10.0.0.3")}}
	p := compiled(oneSubject(peer, stranger), np)
	if rules := rulesOf(t, p); len(rules) != 1 || len(p.Sets) != 1 {
		t.Fatalf("%d rules and %d sets, want one of each", len(rules), len(p.Sets))
	}
	if got := inet.Sorted(p.Sets[0].Elements); len(got) != 1 || got[0].Addr != peer.IPs[0] {
		t.Errorf("members are %v, want the pod that has every label", got)
	}
}

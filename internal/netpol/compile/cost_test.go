// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// What a policy may cost for each byte of its JSON: kernel objects (rules, chains,
// sets, ranges and elements that the policy writes) and allocations from the API
// object to the table. What a table has without the policy comes on top. docs/limits.md
// has the figures.
const (
	objectsPerByte     = 0.15
	allocationsPerByte = 2.0
	fixedAllocations   = 2_000
)

// shape is a policy of one rule, or of many with one entry each.
type shape struct {
	rules, peers, ports, excepts, selectors, values, names int
	egress, v6                                             bool
}

// shapeOf reads a shape from bytes, each of which is a logarithmic count.
func shapeOf(data []byte) shape {
	at := func(i, most int) int {
		if i >= len(data) {
			return 0
		}
		return min(most, 1<<(data[i]%14)-1)
	}
	return shape{rules: at(0, 4_000), peers: at(1, 4_000), ports: at(2, 4_000), excepts: at(3, 4_000),
		selectors: at(4, 1_000),
		values:    at(5, 4_000), names: at(6, 4_000), egress: len(data) > 7 && data[7]%2 == 1, v6: len(data) > 7 &&
			data[7]%4 > 1}
}

// policy writes the shape. Nothing of it can be joined.
func (s shape) policy() *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
	var peers []networkingv1.NetworkPolicyPeer
	for i := range s.peers {
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: s.block(i, 0)})
	}
	if s.excepts > 0 {
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: s.block(0, s.excepts)})
	}
	for i := range s.selectors {
		peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("v", i)}}})
	}
	if s.values > 0 {
		in := metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpIn}
		for i := range s.values {
			in.Values = append(in.Values, fmt.Sprint("w", i))
		}
		peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in}}})
	}
	var ports []networkingv1.NetworkPolicyPort
	for i := range s.ports {
		ports = append(ports, onePort(1+2*i))
	}
	for i := range s.names {
		name := intstr.FromString(fmt.Sprint("n", i))
		ports = append(ports, networkingv1.NetworkPolicyPort{Port: &name})
	}
	s.add(np, peers, ports)
	for i := range s.rules {
		s.add(np, []networkingv1.NetworkPolicyPeer{{IPBlock: s.block(i, 0)}},
			[]networkingv1.NetworkPolicyPort{onePort(1 + i)})
	}
	return np
}

func onePort(n int) networkingv1.NetworkPolicyPort {
	port := intstr.FromInt32(int32(n))
	return networkingv1.NetworkPolicyPort{Port: &port}
}

func (s shape) add(np *networkingv1.NetworkPolicy, peers []networkingv1.NetworkPolicyPeer,
	ports []networkingv1.NetworkPolicyPort) {
	if len(peers)+len(ports) == 0 {
		return
	}
	if s.egress {
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports})
		return
	}
	np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports})
}

func (s shape) block(i, excepts int) *networkingv1.IPBlock {
	text := func(i int) string {
		if s.v6 {
			return fmt.Sprintf("2001:db8:%x:%x::/64", i>>15, i<<1&0xffff)
		}
		return fmt.Sprintf("20.%d.%d.0/24", i>>7, i<<1&255)
	}
	b := &networkingv1.IPBlock{CIDR: text(i)}
	if excepts > 0 {
		b.CIDR = map[bool]string{false: "0.0.0.0/0", true: "::/0"}[s.v6]
	}
	for i := range excepts {
		b.Except = append(b.Except, text(i))
	}
	return b
}

// costOf returns the kernel objects that a policy makes, the allocations on the way
// to the table, and the bytes of the policy.
func costOf(t testing.TB, s shape) (objects, allocations, bytes int) {
	t.Helper()
	np := s.policy()
	text, err := json.Marshal(np)
	if err != nil {
		t.Fatal(err)
	}
	pod := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: "two"}, Node: "one",
		IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}}
	none := objectsOf(ruleset.Render(compiled(oneSubject(pod)), program.Node{}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	snap := withPolicies(oneSubject(pod), []*networkingv1.NetworkPolicy{np})
	table := ruleset.Render(compile.Program(policy.Resolve(snap, "one"), compile.Options{}), program.Node{})
	runtime.ReadMemStats(&after)
	return objectsOf(table) - none, int(after.Mallocs - before.Mallocs), len(text)
}

func objectsOf(t *nft.Table) (n int) {
	for _, c := range t.Chains {
		n += 1 + len(c.Rules)
	}
	for _, s := range t.Sets {
		n += 1 + s.Len()
	}
	return n
}

func checkCost(t testing.TB, s shape) {
	t.Helper()
	objects, allocations, bytes := costOf(t, s)
	if limit := 40 + objectsPerByte*float64(bytes); float64(objects) > limit {
		t.Errorf("%+v: %d kernel objects for %d bytes, more than %.0f", s, objects, bytes, limit)
	}
	if limit := fixedAllocations + allocationsPerByte*float64(bytes); float64(allocations) > limit {
		t.Errorf("%+v: %d allocations for %d bytes, more than %.0f", s, allocations, bytes, limit)
	}
}

// FuzzCost looks for a policy that costs more than its bytes allow.
func FuzzCost(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 9, 9})                 // peers and ports
	f.Add([]byte{0, 4, 4})                 // few of each: pairs
	f.Add([]byte{11})                      // rules
	f.Add([]byte{0, 0, 0, 12, 0, 0, 0, 2}) // exceptions of IPv6
	f.Add([]byte{0, 0, 9, 0, 9})           // selectors and ports
	f.Add([]byte{0, 0, 9, 0, 0, 12, 0, 1}) // a giant selector and ports
	f.Add([]byte{0, 3, 0, 0, 9, 0, 12, 1}) // named ports
	f.Fuzz(func(t *testing.T, data []byte) { checkCost(t, shapeOf(data)) })
}

// The curve of docs/performance.md: run with -v.
func TestCostFollowsTheBytesOfAPolicy(t *testing.T) {
	for _, n := range []int{5, 50, 500, 4_000} {
		for name, s := range map[string]shape{
			"peers x ports":          {peers: n, ports: n},
			"selectors x ports":      {selectors: min(n, 1_000), ports: n},
			"rules":                  {rules: n},
			"exceptions, IPv6":       {excepts: n, v6: true},
			"giant selector x ports": {values: n, ports: n},
			"named ports, egress":    {names: n, peers: 1, egress: true},
		} {
			checkCost(t, s)
			objects, allocations, bytes := costOf(t, s)
			t.Logf("%-23s %5d: %7d bytes, %6d objects (%.2f a byte), %7d allocations (%.1f a byte)",
				name, n, bytes, objects, float64(objects)/float64(bytes), allocations,
				float64(allocations)/float64(bytes))
		}
	}
}

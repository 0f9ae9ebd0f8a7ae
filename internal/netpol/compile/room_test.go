// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// taking returns a policy that takes so many rules of the kernel: blocks that no
// other policy with another number has.
func taking(namespace, name string, number byte, rules int) *policy.Resolved {
	r := &policy.Resolved{Policy: &cluster.Policy{Key: cluster.Key{Namespace: namespace, Name: name},
		IsolatesIngress: true}}
	for i := range rules {
		block := &cluster.IPBlock{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{number, byte(i >> 8), byte(i), 0}),
			24)}
		r.Ingress = append(r.Ingress, policy.Rule{Index: i, Blocks: []*cluster.IPBlock{block}, AnyPort: true})
	}
	return r
}

// isolatedBy returns a pod, the n-th by address, that policies isolate for ingress.
func isolatedBy(n byte, policies ...*policy.Resolved) policy.Workload {
	pod := &cluster.Pod{Key: cluster.Key{Namespace: policies[0].Policy.Key.Namespace, Name: fmt.Sprint("pod", n)},
		IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, n})}}
	return policy.Workload{Pod: pod, Ingress: policy.Isolation{Isolated: true, Policies: policies}}
}

// rulesFor returns how many rules each pod has; -1 where it has no chain.
func rulesFor(t *testing.T, l *Layout) (list []int) {
	t.Helper()
	p := l.Program(nil)
	for _, pod := range p.Pods {
		switch c := p.Chain(pod.Ingress); {
		case pod.Ingress == "":
			t.Errorf("%s is open", pod.Name)
			list = append(list, -1)
		case c == nil:
			t.Errorf("%s is judged by %s, which is not there", pod.Name, pod.Ingress)
			list = append(list, -1)
		default:
			list = append(list, len(c.Rules))
		}
	}
	return list
}

func TestOfThePoliciesOfAPodTheLargestFindNoRoom(t *testing.T) {
	small, medium, large, giant := taking("a", "c", 1, 10), taking("a", "b", 2, 3000),
		taking("a", "a", 3, MaxChainRules-2000), taking("a", "d", 4, MaxChainRules+1)
	l := NewLayout(&policy.Layout{Workloads: []policy.Workload{isolatedBy(1, large, medium, small),
		isolatedBy(2, giant)}}, Options{})
	if got := fmt.Sprint(rulesFor(t, l)); got != "[3010 0]" {
		t.Errorf("the pods have %s rules", got)
	}
	if d := l.Diagnostics; len(d) != 2 || d[0].Object.Name != "a" || d[1].Object.Name != "d" {
		t.Errorf("diagnostics are %v", d)
	}
}

func TestPodsOfANamespaceWithoutRoomAreClosed(t *testing.T) {
	var pods []policy.Workload
	for i := range byte(4) {
		pods = append(pods, isolatedBy(i, taking("a", fmt.Sprint("p", i), i, MaxNamespaceRules/4)))
	}
	late := taking("a", "q", 9, 100)
	pods = append(pods, isolatedBy(10, late), isolatedBy(11, late), isolatedBy(12, taking("b", "p", 10, 100)))
	l := NewLayout(&policy.Layout{Workloads: pods}, Options{})
	if got := fmt.Sprint(rulesFor(t, l)); got != "[8192 8192 8192 8192 0 0 100]" {
		t.Errorf("the pods have %s rules", got)
	}
	if d := l.Diagnostics; len(d) != 1 || d[0].Kind != "Namespace" || d[0].Object.Name != "a" {
		t.Errorf("diagnostics are %v", d)
	}
}

// A compiler keeps what is the same, and says what it costs to write the rest.
func TestACompilerPaysForWhatIsNew(t *testing.T) {
	many := func(more ...policy.Rule) *policy.Resolved {
		r := taking("a", "p", 1, 0)
		var blocks []*cluster.IPBlock
		for i := range byte(maxLiterals + 1) {
			blocks = append(blocks, &cluster.IPBlock{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + 2*i}), 8)})
		}
		r.Ingress = append([]policy.Rule{{Blocks: blocks, AnyPort: true}}, more...)
		return r
	}
	c := NewCompiler(Options{})
	first, other := many(), taking("b", "p", 2, 5)
	changed := many(policy.Rule{Index: 1, AnyPeer: true,
		Ports: []cluster.Port{{Protocol: cluster.TCP, First: 80, Last: 80}}})
	for _, step := range []struct {
		name   string
		policy *policy.Resolved
		work   string
		rules  string
	}{
		{"at first", first, fmt.Sprintf("map[a:%d b:5]", 1+maxLiterals+1), "[1 5]"},
		{"nothing new", first, "map[]", "[1 5]"},
		{"a rule more", changed, "map[a:2]", "[2 5]"},
	} {
		l := c.Layout(&policy.Layout{Workloads: []policy.Workload{isolatedBy(1, step.policy), isolatedBy(2, other)}})
		if got := fmt.Sprint(l.Work); got != step.work {
			t.Errorf("%s: the work is %s, want %s", step.name, got, step.work)
		}
		if got := fmt.Sprint(rulesFor(t, l)); got != step.rules {
			t.Errorf("%s: the pods have %s rules, want %s", step.name, got, step.rules)
		}
		p := l.Program(nil)
		for _, chain := range p.Chains {
			for _, r := range chain.Rules {
				if r.PeerSet != "" && p.Set(r.PeerSet) == nil {
					t.Errorf("%s: the set %s is not there", step.name, r.PeerSet)
				}
			}
		}
	}
}

// Sets of blocks with the same first address are not the same.
func TestSetsOfOtherBlocksHaveOtherNames(t *testing.T) {
	c := &compiled{sets: map[string]*setRef{}}
	for _, last := range []byte{100, 102} {
		var blocks []*cluster.IPBlock
		for i := range byte(maxLiterals) {
			blocks = append(blocks, &cluster.IPBlock{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{20 + 2*i}), 8)})
		}
		c.blockPeers(inet.IPv4, program.Ingress, append(blocks,
			&cluster.IPBlock{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{last}), 8)}))
	}
	if len(c.sets) != 2 {
		t.Errorf("%d sets, want 2", len(c.sets))
	}
}

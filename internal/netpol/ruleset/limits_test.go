// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// commit brings the kernel to a program and wants to find it there.
func commit(t *testing.T, c *nft.Conn, from *nft.Table, p *program.Program) *nft.Table {
	t.Helper()
	start := time.Now()
	to := ruleset.Render(p, program.Node{})
	ops := nft.Diff(from, to)
	rendered := time.Now()
	if err := c.Commit(ops); err != nil {
		t.Fatal(err)
	}
	committed := time.Now()
	var got *nft.Table
	for range 50 { // while a hash grows a listing misses some of its elements
		var err error
		if got, err = c.Read(); err != nil {
			t.Fatal(err)
		}
		if len(nft.Diff(got, to)) == 0 {
			t.Logf("rendered and compared in %v, committed in %v, read back in %v", rendered.Sub(start), committed.Sub(rendered), time.Since(committed))
			return to
		}
	}
	t.Fatalf("the kernel does not hold what was committed: %v", nft.Diff(got, to))
	return nil
}

// A set of as many addresses as there are in a large cluster, also when the
// whole table has to be replaced in one transaction.
func TestLimitOfElementsInASet(t *testing.T) {
	// The kernel lists a set of ranges at a cost that goes with the square.
	// Enough to meet every cut of a message, or the documented limit.
	for kind, n := range map[inet.SetKind]int{inet.Addrs: soak.Times(20_000, 1_000_000), inet.AddrRanges: soak.Times(2_000, 60_000)} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			p := &program.Program{
				Pods: []program.Pod{{Addr: netip.MustParseAddr("10.244.1.5"), Name: "shop/web", Ingress: "ingress4-web"}},
				Chains: []*program.Chain{{Name: "ingress4-web", Direction: program.Ingress, Family: inet.IPv4,
					Rules: []program.Rule{{PeerSet: "many"}}}},
				Sets: []*program.Set{{Name: "many", Kind: kind, Family: inet.IPv4}},
			}
			for i := range n {
				e := inet.Element{Addr: netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x14000000+2*uint32(i))))}
				if kind == inet.AddrRanges {
					p.Sets[0].Ranges = append(p.Sets[0].Ranges, inet.Range{First: e, Last: e})
				} else {
					p.Sets[0].Elements = p.Sets[0].Elements.With(e)
				}
			}
			c := connIn(t, nftrun.Namespace(t))
			table := commit(t, c, nil, p)
			dormant := *table
			dormant.Dormant = true // so that the whole table is replaced
			commit(t, c, &dormant, p)
		})
	}
}

// Rules that cannot be dispatched by port, in one chain.
func TestLimitOfRulesInAChain(t *testing.T) {
	p := &program.Program{
		Pods:   []program.Pod{{Addr: netip.MustParseAddr("10.244.1.5"), Name: "shop/web", Ingress: "ingress4-web"}},
		Chains: []*program.Chain{{Name: "ingress4-web", Direction: program.Ingress, Family: inet.IPv4}},
	}
	for i := range soak.Times(3_000, 100_000) {
		block := netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x14000000+256*uint32(i)))), 24)
		p.Chains[0].Rules = append(p.Chains[0].Rules, program.Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 1000, Last: 2000},
			Block: program.Block{CIDR: block}})
	}
	table := commit(t, connIn(t, nftrun.Namespace(t)), nil, p)
	for _, c := range table.Chains {
		if c.Name == "ingress4-web" && len(c.Rules) < len(p.Chains[0].Rules) {
			t.Errorf("the chain has %d rules, want %d: something is dispatched, and nothing was measured", len(c.Rules), len(p.Chains[0].Rules))
		}
	}
}

// Many policies on one pod, each with a rule of its own, and all with the same.
func TestLimitOfPoliciesOnAPod(t *testing.T) {
	n := soak.Times(500, 10_000)
	for name, port := range map[string]func(int) int{"rules of their own": func(i int) int { return 1 + i }, "the same rule": func(int) int { return 80 }} {
		t.Run(name, func(t *testing.T) {
			store := cluster.NewStore()
			store.Update(func(tx *cluster.Tx) {
				tx.SetNamespace(&cluster.Namespace{Name: "shop"})
				tx.SetPod(convert.NewInterner().Pod(&corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"},
					Spec:       corev1.PodSpec{NodeName: "one"},
					Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.244.1.5"}}},
				}))
				for i := range n {
					tx.SetPolicy(onePort(i, port(i)))
				}
			})
			start := time.Now()
			p := compile.Program(policy.Resolve(store.Snapshot(), "one"), compile.Options{})
			t.Logf("%d policies, compiled in %v", n, time.Since(start))
			commit(t, connIn(t, nftrun.Namespace(t)), nil, p)
		})
	}
}

// onePort is a policy that a test knows to be right.
func onePort(i, port int) *cluster.Policy {
	number := intstr.FromInt32(int32(port))
	p, _ := convert.Policy(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%06d", i), Namespace: "shop"},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{
			Ports: []networkingv1.NetworkPolicyPort{{Port: &number}},
			From:  []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("20.%d.%d.0/24", port/256%256, port%256)}}},
		}}},
	})
	return p
}

// Names of any length: the API allows 253 bytes, nftables' comments 128.
func TestLimitOfComments(t *testing.T) {
	long := strings.Repeat("n", 253)
	p := &program.Program{
		Pods: []program.Pod{{Addr: netip.MustParseAddr("10.244.1.5"), Name: long + "/" + long, Ingress: "ingress4-web"}},
		Chains: []*program.Chain{{Name: "ingress4-web", Direction: program.Ingress, Family: inet.IPv4,
			Rules: []program.Rule{{PeerSet: "peers", Comment: strings.Repeat(long+" ingress[0], ", 100)}}}},
		Sets: []*program.Set{{Name: "peers", Kind: inet.Addrs, Family: inet.IPv4, Comment: strings.Repeat(long, 10)}},
	}
	commit(t, connIn(t, nftrun.Namespace(t)), nil, p)
}

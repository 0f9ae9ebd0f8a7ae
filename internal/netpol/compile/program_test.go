// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// withPolicies returns the snapshot with other policies.
func withPolicies(snap *cluster.Snapshot, list []*networkingv1.NetworkPolicy) *cluster.Snapshot {
	other := *snap
	other.Policies = nil
	for _, np := range list {
		p, _ := convert.Policy(np)
		other.Policies = append(other.Policies, p)
	}
	return &other
}

// Invariant 1: the order in which a user lists peers, ports, holes and
// expressions is no part of the meaning, so it is no part of the program.
func TestInvariant1OrderOfItemsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		written := map[cluster.Key]*networkingv1.NetworkPolicy{}
		for range rapid.IntRange(1, 5).Draw(t, "written policies") {
			p := gen.APIPolicy(t)
			written[cluster.Key{Namespace: p.Namespace, Name: p.Name}] = p
		}
		var list, other []*networkingv1.NetworkPolicy
		for _, k := range slices.SortedFunc(maps.Keys(written), cluster.Key.Compare) {
			list = append(list, written[k])
			other = append(other, gen.Shuffle(t, written[k]))
		}
		a, b := withPolicies(snap, list), withPolicies(snap, other)
		slices.Reverse(b.Policies)
		b.Pods = slices.Clone(b.Pods)
		slices.Reverse(b.Pods)
		want := compile.Program(policy.Resolve(a, "one"), compile.Options{}).String()
		got := compile.Program(policy.Resolve(b, "one"), compile.Options{}).String()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("program, as written (-), in another order (+):\n%s\n%s", diff, gen.Describe(a))
		}
	})
}

// What a program promises about itself: sorted, every name is used, every name
// that is used exists, kinds and families fit.
func TestProgramsAreWellFormed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := compile.Program(policy.Resolve(gen.Snapshot(t), "one"), compile.Options{})
		used := map[string]bool{}
		for i, pod := range p.Pods {
			if i > 0 && p.Pods[i-1].Addr.Compare(pod.Addr) >= 0 {
				t.Fatalf("pods are not sorted: %s", p)
			}
			if namespace, _, _ := strings.Cut(pod.Name, "/"); pod.Tenant != namespace || namespace == "" {
				t.Fatalf("pod %s: tenant %q", pod.Name, pod.Tenant)
			}
			if pod.Ingress != "" && pod.AuditIngress != "" || pod.Egress != "" && pod.AuditEgress != "" {
				t.Fatalf("pod %+v is isolated and audited in one direction", pod)
			}
			for _, name := range []string{pod.Ingress, pod.Egress, pod.AuditIngress, pod.AuditEgress} {
				if name == "" {
					continue
				}
				used[name] = true
				if c := p.Chain(name); c == nil || c.Family != inet.FamilyOf(pod.Addr) {
					t.Fatalf("pod %s: no chain %s of its family", pod.Addr, name)
				}
			}
		}
		for _, c := range p.Chains {
			for _, r := range c.Rules {
				checkRule(t, p, c, r, used)
			}
		}
		for _, c := range p.Chains {
			if !used[c.Name] {
				t.Fatalf("chain %s is not used", c.Name)
			}
		}
		for _, s := range p.Sets {
			if !used[s.Name] {
				t.Fatalf("set %s is not used", s.Name)
			}
		}
		if !slices.IsSortedFunc(p.Sets, func(a, b *program.Set) int { return strings.Compare(a.Name, b.Name) }) ||
			!slices.IsSortedFunc(p.Chains, func(a, b *program.Chain) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("not sorted by name: %s", p)
		}
	})
}

func checkRule(t *rapid.T, p *program.Program, c *program.Chain, r program.Rule, used map[string]bool) {
	t.Helper()
	kinds := map[string][]inet.SetKind{
		r.PortSet: {inet.PortRanges}, r.DestSet: {inet.AddrPorts}, r.PeerSet: {inet.Addrs, inet.AddrRanges},
	}
	delete(kinds, "")
	for name, want := range kinds {
		used[name] = true
		s := p.Set(name)
		if s == nil || !slices.Contains(want, s.Kind) || s.Family != 0 && s.Family != c.Family {
			t.Fatalf("rule %s of %s: set %s is %+v", r, c.Name, name, s)
		}
		for e := range s.Elements.All() {
			if inet.FamilyOf(e.Addr) != s.Family {
				t.Fatalf("set %s of family %d has %s", name, s.Family, e.Addr)
			}
		}
		for _, r := range s.Ranges {
			if s.Kind == inet.AddrRanges && (inet.FamilyOf(r.First.Addr) != s.Family ||
				inet.FamilyOf(r.Last.Addr) != s.Family) {
				t.Fatalf("set %s of family %d has %v", name, s.Family, r)
			}
		}
	}
	switch {
	case !r.Ports.Any() && (r.Protocol == inet.AnyProtocol || r.Ports.First > r.Ports.Last),
		(r.DestSet != "" || r.PortSet != "") && r.Protocol == inet.AnyProtocol,
		!r.Block.Any() && inet.FamilyOf(r.Block.CIDR.Addr()) != c.Family:
		t.Fatalf("rule %s of %s cannot be rendered", r, c.Name)
	}
}

func localPod(name, ip string, terminating bool, label string) *cluster.Pod {
	return &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, Node: "one", Terminating: terminating,
		Labels: cluster.NewLabels(map[string]string{"app": label}), IPs: []netip.Addr{netip.MustParseAddr(ip)}}
}

// When two pods that both run claim one address, we cannot tell whose packets
// these are: closed as soon as one of them is isolated. A pod that is being
// deleted does not count beside one that stays.
func TestASharedAddressIsClosed(t *testing.T) {
	open := localPod("open", "10.0.0.1", false, "open")
	isolated := localPod("isolated", "10.0.0.1", false, "isolated")
	leaving := localPod("leaving", "10.0.0.1", true, "isolated")
	leavingOpen := localPod("leaving-open", "10.0.0.1", true, "open")
	np := &networkingv1.NetworkPolicy{}
	np.Namespace, np.Name = "shop", "p"
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": "isolated"}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}} // allows everything
	tests := []struct {
		name string
		pods []*cluster.Pod
		want program.Verdict
	}{
		{"an isolated pod that allows everything", []*cluster.Pod{isolated}, program.Accept},
		{"an open pod", []*cluster.Pod{open}, program.Accept},
		{"both", []*cluster.Pod{isolated, open}, program.Drop},
		{"two open pods", []*cluster.Pod{open, localPod("other", "10.0.0.1", false, "open")}, program.Accept},
		{"one leaves, an open one stays", []*cluster.Pod{leaving, open}, program.Accept},
		{"one leaves, an isolated one stays", []*cluster.Pod{isolated, leavingOpen}, program.Accept},
		{"both leave", []*cluster.Pod{leaving, leavingOpen}, program.Drop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			snap := withPolicies(&cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}, Pods: tt.pods},
				[]*networkingv1.NetworkPolicy{np})
			p := compile.Program(policy.Resolve(snap, "one"), compile.Options{})
			f := program.Flow{Protocol: inet.TCP, Src: netip.MustParseAddr("10.0.0.9"), Dst: open.IPs[0], DstPort: 80}
			if got := program.Eval(p, f); got != tt.want {
				t.Errorf("verdict = %s, want %s\n%s", got, tt.want, p)
			}
			f.Src, f.FromNode = netip.MustParseAddr("192.168.0.1"), true
			if got := program.Eval(p, f); got != program.Accept {
				t.Errorf("the node to its own pod: %s", got)
			}
		})
	}
}

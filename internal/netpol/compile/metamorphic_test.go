// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/program"
)

// written returns one to five random policies as users write them, no two of
// one name.
func written(t *rapid.T) []*networkingv1.NetworkPolicy {
	var list []*networkingv1.NetworkPolicy
	for range rapid.IntRange(1, 5).Draw(t, "written policies") {
		p := gen.APIPolicy(t)
		list = slices.DeleteFunc(list, func(o *networkingv1.NetworkPolicy) bool {
			return o.Namespace == p.Namespace &&
				o.Name == p.Name
		})
		list = append(list, p)
	}
	return list
}

// matrix asks both nodes about every flow of the small world.
func matrix(snap *cluster.Snapshot, visit func(src, dst end, f program.Flow, allowed bool)) {
	list, points := programs(snap), ends(snap)
	for _, src := range points {
		for _, dst := range points {
			if src.addr.Is4() != dst.addr.Is4() || src.addr == dst.addr {
				continue
			}
			for _, f := range probes() {
				visit(src, dst, f, judge(list, f, src, dst))
			}
		}
	}
}

// verdicts returns the matrix as a list.
func verdicts(snap *cluster.Snapshot) []bool {
	var list []bool
	matrix(snap, func(_, _ end, _ program.Flow, allowed bool) { list = append(list, allowed) })
	return list
}

// rewriting is another way to write the policies that must mean the same. It
// returns nil if it leaves the policy as it is.
type rewriting func(*networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy

// meansTheSame rewrites random policies and compares all verdicts.
func meansTheSame(t *testing.T, rewrite rewriting) {
	t.Helper()
	rewritten, allowed, denied := 0, 0, 0
	enough := func() bool { return rewritten >= 20 && allowed >= 1000 && denied >= 1000 }
	ok := checkUntil(t, enough, func(t *rapid.T) {
		snap, before := gen.Snapshot(t), written(t)
		var after []*networkingv1.NetworkPolicy
		for _, p := range before {
			if list := rewrite(p); list != nil {
				after, rewritten = append(after, list...), rewritten+1
			} else {
				after = append(after, p)
			}
		}
		a, b := withPolicies(snap, before), withPolicies(snap, after)
		got, i := verdicts(b), 0
		matrix(a, func(src, dst end, f program.Flow, want bool) {
			if got[i] != want {
				t.Fatalf("%s %d from %s to %s: allowed: %t, rewritten: %t\n%swritten as\n%s", f.Protocol, f.DstPort,
					src.addr, dst.addr, want, got[i], gen.Describe(a), gen.Describe(b))
			}
			if i++; want {
				allowed++
			} else {
				denied++
			}
		})
	})
	if !ok {
		t.Errorf("%d policies rewritten, %d flows allowed, %d denied: too dull to show anything", rewritten, allowed,
			denied)
	}
}

// eachRule returns the policy with every rule replaced by others; peers and
// ports is what a rule of either direction has.
func eachRule(p *networkingv1.NetworkPolicy, split func(rule) []rule) *networkingv1.NetworkPolicy {
	p = p.DeepCopy()
	ingress, egress := p.Spec.Ingress, p.Spec.Egress
	if ingress != nil {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{}
	}
	if egress != nil {
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{}
	}
	for _, r := range ingress {
		for _, n := range split(rule{r.From, r.Ports}) {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: n.peers,
				Ports: n.ports})
		}
	}
	for _, r := range egress {
		for _, n := range split(rule{r.To, r.Ports}) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: n.peers, Ports: n.ports})
		}
	}
	return p
}

type rule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func TestSplittingARuleByPeersKeepsEveryVerdict(t *testing.T) {
	meansTheSame(t, func(p *networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
		return []*networkingv1.NetworkPolicy{eachRule(p, func(r rule) []rule {
			if len(r.peers) < 2 {
				return []rule{r}
			}
			var list []rule
			for i := range r.peers {
				list = append(list, rule{r.peers[i : i+1], r.ports})
			}
			return list
		})}
	})
}

func TestSplittingARuleByPortsKeepsEveryVerdict(t *testing.T) {
	meansTheSame(t, func(p *networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
		return []*networkingv1.NetworkPolicy{eachRule(p, func(r rule) []rule {
			if len(r.ports) < 2 {
				return []rule{r}
			}
			var list []rule
			for i := range r.ports {
				list = append(list, rule{r.peers, r.ports[i : i+1]})
			}
			return list
		})}
	})
}

// A policy is the union of policies with one of its rules each, as long as
// each isolates what the whole isolates.
func TestSplittingAPolicyByRulesKeepsEveryVerdict(t *testing.T) {
	meansTheSame(t, func(p *networkingv1.NetworkPolicy) []*networkingv1.NetworkPolicy {
		whole, found := convert.Policy(p)
		if slices.ContainsFunc(found, func(d cluster.Diagnostic) bool { return d.Field == "spec.podSelector" }) {
			return nil
		}
		base := p.DeepCopy()
		base.Spec.PolicyTypes, base.Spec.Ingress, base.Spec.Egress = nil, nil, nil
		if whole.IsolatesIngress {
			base.Spec.PolicyTypes = append(base.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
		}
		if whole.IsolatesEgress {
			base.Spec.PolicyTypes = append(base.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
		parts := []*networkingv1.NetworkPolicy{base}
		for i := range p.Spec.Ingress {
			part := base.DeepCopy()
			part.Name, part.Spec.Ingress = part.Name+"-i"+string(rune('0'+i)), p.Spec.Ingress[i:i+1]
			parts = append(parts, part)
		}
		for i := range p.Spec.Egress {
			part := base.DeepCopy()
			part.Name, part.Spec.Egress = part.Name+"-e"+string(rune('0'+i)), p.Spec.Egress[i:i+1]
			parts = append(parts, part)
		}
		return parts
	})
}

// Policies only add: one more policy takes a connection away only by isolating
// an end that was not isolated in that direction before.
func TestAnotherPolicyNeverTakesFromWhatIsAlreadyIsolated(t *testing.T) {
	kept, opened := 0, 0
	ok := checkUntil(t, func() bool { return kept >= 1000 && opened > 0 }, func(t *rapid.T) {
		snap := withPolicies(gen.Snapshot(t), written(t))
		more := *snap
		one := gen.Policy(t)
		one.Key.Name = "one-more"
		more.Policies = append(slices.Clone(snap.Policies), one)
		old, now, after, i := programs(snap), programs(&more), verdicts(&more), 0
		matrix(snap, func(src, dst end, f program.Flow, before bool) {
			allowed := after[i]
			i++
			fresh := newlyIsolated(old, now, src, program.Egress) || newlyIsolated(old, now, dst, program.Ingress)
			switch {
			case before && !allowed && !fresh:
				t.Fatalf("%s %d from %s to %s is lost by one more policy\n%s", f.Protocol, f.DstPort, src.addr,
					dst.addr, gen.Describe(&more))
			case before && !fresh && (isIsolated(old, src, program.Egress) || isIsolated(old, dst, program.Ingress)):
				kept++
			case !before && allowed:
				opened++
			}
		})
	})
	if !ok {
		t.Errorf("%d connections kept and %d opened: too dull to show anything", kept, opened)
	}
}

func isIsolated(list map[string]*program.Program, e end, d program.Direction) bool {
	for _, p := range list {
		if isolated(p, e.addr, d) {
			return true
		}
	}
	return false
}

func newlyIsolated(old, now map[string]*program.Program, e end, d program.Direction) bool {
	return !isIsolated(old, e, d) && isIsolated(now, e, d)
}

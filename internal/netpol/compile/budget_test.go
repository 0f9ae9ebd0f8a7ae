// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// oneEach is a policy of the pods of an app, of so many rules that cannot be joined.
func oneEach(name, app string, rules int) *networkingv1.NetworkPolicy {
	np := shape{rules: rules}.policy()
	np.Name = name
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
	return np
}

func layoutOf(snap *cluster.Snapshot, list ...*networkingv1.NetworkPolicy) (*compile.Layout, *program.Program) {
	m := policy.Resolve(withPolicies(snap, list), "one")
	l := compile.NewLayout(m.Layout, compile.Options{})
	return l, l.Program(m.Sets)
}

// Of the policies of a pod those with the fewest rules stay in force.
func TestTheRulesOfAPodAreBounded(t *testing.T) {
	snap := &cluster.Snapshot{Pods: []*cluster.Pod{localPod("web", "10.0.0.1", false, "web")}}
	half := compile.MaxChainRules / 2
	l, p := layoutOf(snap, oneEach("a-large", "web", half+2), oneEach("medium", "web", half-1),
		oneEach("small", "web", 2))
	if n := len(p.Chain(p.Pods[0].Ingress).Rules); n != half-1 {
		t.Errorf("%d rules, want those of the smaller policies", n)
	}
	if len(l.Diagnostics) != 1 || l.Diagnostics[0].Object.Name != "a-large" || l.Diagnostics[0].Cure == "" {
		t.Errorf("diagnostics %v", l.Diagnostics)
	}
	if l, _ := layoutOf(snap, oneEach("a-large", "web", half), oneEach("medium", "web", half)); len(l.Diagnostics) > 0 {
		t.Errorf("within the budget: %v", l.Diagnostics)
	}
}

// Pods for whose rules a namespace has no room are closed; those of others are not.
func TestTheRulesOfANamespaceAreBounded(t *testing.T) {
	const each = 5_000
	const n = compile.MaxNamespaceRules/each + 1
	const theirRules = 3_000 // more than the first namespace leaves
	large := oneEach("large", "", each)
	large.Spec.PodSelector.MatchLabels = nil
	list := []*networkingv1.NetworkPolicy{large}
	var pods []*cluster.Pod
	for i := range n { // each with a chain of its own
		app := fmt.Sprint("app", i)
		pods = append(pods, localPod(app, fmt.Sprintf("10.0.0.%d", i+1), false, app))
		own := oneEach(app, app, 0)
		own.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{cidr(fmt.Sprintf("30.0.0.%d/32", i))}}}
		list = append(list, own)
	}
	other := localPod("other", "10.0.1.1", false, "other")
	other.Key.Namespace = "other"
	theirs := oneEach("other", "other", theirRules)
	theirs.Namespace = "other"
	early := localPod("early", "9.0.0.1", false, "early") // before the others, so that the namespace has an account
	early.Key.Namespace = "other"
	soon := oneEach("early", "early", 2)
	soon.Namespace = "other"
	l, p := layoutOf(&cluster.Snapshot{Pods: append(pods, other, early)}, append(list, theirs, soon)...)
	closed, rules := 0, 0
	for _, pod := range p.Pods {
		c := p.Chain(pod.Ingress)
		switch {
		case c == nil:
			t.Fatalf("%s is open", pod.Name)
		case pod.Name == "other/other" && len(c.Rules) != theirRules, pod.Name == "other/early" && len(c.Rules) != 2:
			t.Errorf("another namespace has %d rules", len(c.Rules))
		case len(c.Rules) == 0:
			closed++
		}
		rules += len(c.Rules)
	}
	if closed != 1 || rules > compile.MaxNamespaceRules+theirRules+2 {
		t.Errorf("%d pods are closed, %d rules", closed, rules)
	}
	if len(l.Diagnostics) != 1 || l.Diagnostics[0].Kind != "Namespace" || !strings.Contains(l.Diagnostics[0].Message,
		"32768") {
		t.Errorf("diagnostics %v", l.Diagnostics)
	}
}

// What a layout shares with the one before it costs nothing again, and only the
// namespace that changed pays.
func TestOnlyWhatChangedIsCompiledAgain(t *testing.T) {
	index := policy.NewIndex("one")
	store := cluster.NewStore()
	set := func(namespace string, rules int) {
		np := oneEach("p", "web", rules)
		np.Namespace = namespace
		store.Update(func(tx *cluster.Tx) {
			tx.SetPolicy(withPolicies(&cluster.Snapshot{}, []*networkingv1.NetworkPolicy{np}).Policies[0])
		})
	}
	for i, ns := range []string{"a", "b"} {
		pod := localPod("web", "10.0.0.1", false, "web")
		pod.Key.Namespace, pod.IPs = ns, []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}
		store.Update(func(tx *cluster.Tx) { tx.SetPod(pod) })
		set(ns, 20)
	}
	c := compile.NewCompiler(compile.Options{})
	next := func() *compile.Layout {
		index.Apply(store.Take())
		return c.Layout(index.Model().Layout)
	}
	if l := next(); l.Work["a"] != 20 || l.Work["b"] != 20 {
		t.Fatalf("at first %v", l.Work)
	}
	set("a", 30)
	if l := next(); l.Work["a"] != 30 || l.Work["b"] != 0 {
		t.Errorf("after a change of a: %v", l.Work)
	}
	store.Update(func(tx *cluster.Tx) { tx.SetPod(localPod("new", "10.0.0.9", false, "new")) })
	if l := next(); len(l.Work) != 0 {
		t.Errorf("after a new pod of others: %v", l.Work)
	}
}

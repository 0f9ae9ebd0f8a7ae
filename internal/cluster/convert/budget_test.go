// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

func withBlocks(n, excepts int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	rule := networkingv1.NetworkPolicyIngressRule{}
	for i := range n {
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("20.%d.%d.0/24", i>>8, i&255)}})
	}
	for i := range excepts {
		b := rule.From[0].IPBlock
		b.CIDR, b.Except = "10.0.0.0/8", append(b.Except, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	}
	np.Spec.Ingress = append(np.Spec.Ingress, rule)
	return np
}

// Above the budget a policy isolates the same pods and allows nothing, with one
// diagnostic; nothing of it was read.
func TestEveryKindOfEntryCountsAgainstTheBudget(t *testing.T) {
	p, found := Policy(withBlocks(cluster.MaxPolicyEntries-20, 0))
	if len(found) > 0 || len(p.Ingress) != 1 {
		t.Fatalf("within the budget: %v", found)
	}
	for name, np := range map[string]*networkingv1.NetworkPolicy{
		"blocks":     withBlocks(cluster.MaxPolicyEntries, 0),
		"exceptions": withBlocks(1, cluster.MaxPolicyEntries),
		"values":     withValues(cluster.MaxPolicyEntries),
		"broad":      withBroad(100),
	} {
		p, found := Policy(np)
		if len(p.Ingress) != 0 || !p.IsolatesIngress || p.Subject.String() != "app=web" {
			t.Errorf("%s: %d rules, subject %s", name, len(p.Ingress), p.Subject)
		}
		if len(found) != 1 || found[0].Severity != cluster.Error || found[0].Cure == "" ||
			!strings.Contains(found[0].Message, fmt.Sprint(cluster.MaxPolicyEntries)) {
			t.Errorf("%s: diagnostics %v", name, found)
		}
	}
}

// A policy above the budget is counted and not parsed, whatever its entries are: its author may change it all
// the time.
func TestAPolicyAboveTheBudgetIsNotParsed(t *testing.T) {
	for name, np := range map[string]*networkingv1.NetworkPolicy{
		"blocks": withBlocks(cluster.MaxPolicyEntries, 0), "exceptions": withBlocks(1, cluster.MaxPolicyEntries),
		"values": withValues(cluster.MaxPolicyEntries), "selectors": withSelectors(cluster.MaxPolicyEntries / 4),
	} {
		if n := testing.AllocsPerRun(1, func() { Policy(np) }); n > 100 {
			t.Errorf("%s: %.0f allocations", name, n)
		}
	}
}

// withSelectors has selectors for one value of one label, each of size 5.
func withSelectors(n int) *networkingv1.NetworkPolicy {
	np := withBlocks(1, 0)
	for i := range n {
		np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{
			PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("v", i)}}})
	}
	return np
}

func withValues(n int) *networkingv1.NetworkPolicy {
	np := withBlocks(1, 0)
	in := metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpIn}
	for i := range n {
		in.Values = append(in.Values, fmt.Sprint("v", i))
	}
	np.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in}}}
	return np
}

// withBroad has selectors that must be asked about every pod.
func withBroad(n int) *networkingv1.NetworkPolicy {
	np := withBlocks(1, 0)
	for i := range n {
		absent := metav1.LabelSelectorRequirement{Key: fmt.Sprint("k", i), Operator: metav1.LabelSelectorOpDoesNotExist}
		np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{
			PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{absent}}})
	}
	return np
}

func TestALargeSelectorOfSubjectsIsolatesTheNamespace(t *testing.T) {
	np := withBlocks(1, 0)
	np.Spec.PodSelector = *withValues(cluster.MaxSubject).Spec.Ingress[0].From[0].PodSelector
	p, found := Policy(np)
	if !p.Subject.MatchesAll() || len(p.Ingress) != 0 || len(found) != 1 || found[0].Field != "spec.podSelector" {
		t.Errorf("subject %.40s, diagnostics %v", p.Subject, found)
	}
}

func TestTheFindingsOfAPolicyAreBounded(t *testing.T) {
	np := withBlocks(1_000, 0)
	for i := range np.Spec.Ingress[0].From {
		np.Spec.Ingress[0].From[i].IPBlock.CIDR = "bad"
	}
	_, found := Policy(np)
	if len(found) != maxFindings+1 || !strings.Contains(found[maxFindings].Message, "980 more") {
		t.Errorf("%d findings, the last %v", len(found), found[len(found)-1])
	}
}

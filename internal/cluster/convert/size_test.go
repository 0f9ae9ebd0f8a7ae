// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
)

func manyValues(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint("v", i))
	}
	return list
}

func portsFrom(first, n int) (list []networkingv1.NetworkPolicyPort) {
	for i := range n {
		port := intstr.FromInt32(int32(first + i))
		list = append(list, networkingv1.NetworkPolicyPort{Port: &port})
	}
	return list
}

// Above its budget a policy isolates what it isolated and allows nothing, whether
// that is seen by counting or only after its selectors were read.
func TestAPolicyAboveItsBudgetAllowsNothing(t *testing.T) {
	var broad []networkingv1.NetworkPolicyPeer
	for i := range 100 {
		absent := []metav1.LabelSelectorRequirement{{Key: fmt.Sprint("k", i),
			Operator: metav1.LabelSelectorOpDoesNotExist}}
		broad = append(broad, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchExpressions: absent}})
	}
	for _, tt := range []struct {
		name  string
		rule  networkingv1.NetworkPolicyIngressRule
		rules int
	}{
		{"within it", networkingv1.NetworkPolicyIngressRule{Ports: portsFrom(1, 16_000)}, 1},
		{"too many ports", networkingv1.NetworkPolicyIngressRule{Ports: portsFrom(1, cluster.MaxPolicyEntries)}, 0},
		{"too many broad selectors", networkingv1.NetworkPolicyIngressRule{From: broad}, 0},
	} {
		np := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{tt.rule}}}
		p, found := Policy(np)
		if !p.IsolatesIngress || !p.Subject.MatchesAll() || len(p.Ingress) != tt.rules {
			t.Errorf("%s: isolates %t %s, %d rules, want %d", tt.name, p.IsolatesIngress, p.Subject, len(p.Ingress),
				tt.rules)
		}
		if said := len(found) == 1 && strings.Contains(found[0].Message, "entries"); said != (tt.rules == 0) {
			t.Errorf("%s: found %v", tt.name, found)
		}
	}
}

func TestASubjectThatIsTooLargeIsEveryPod(t *testing.T) {
	for n, want := range map[int]bool{cluster.MaxSubject / 2: false, cluster.MaxSubject + 1: true} {
		in := []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpIn, Values: manyValues(n)}}
		p, found := Policy(&networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchExpressions: in}}})
		if p.Subject.MatchesAll() != want || !p.Subject.Valid() || len(found) > 0 != want {
			t.Errorf("with %d values every pod is isolated: %t, want %t; found %v", n, p.Subject.MatchesAll(), want,
				found)
		}
	}
}

func TestManyFindingsAreCounted(t *testing.T) {
	rule := networkingv1.NetworkPolicyIngressRule{Ports: portsFrom(70_000, maxFindings+10)}
	_, found := Policy(&networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{rule}}})
	if len(found) != maxFindings+1 || !strings.Contains(found[maxFindings].Message, "10 more") {
		t.Errorf("%d findings, the last is %v", len(found), found[len(found)-1])
	}
}

// The paths of fields are put together for faults only: a tenant's giant has thousands of entries.
func TestAnEntryWithoutAFaultCostsFewAllocations(t *testing.T) {
	const n = 1_000
	var blocks []networkingv1.NetworkPolicyPeer
	for i := range n {
		blocks = append(blocks, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{
			CIDR: fmt.Sprintf("10.%d.%d.0/24", i/250, i%250)}})
	}
	np := &networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: blocks, Ports: portsFrom(1, n)}}}}
	if _, faults := Policy(np); len(faults) > 0 {
		t.Fatalf("faults are %v", faults)
	}
	if got := testing.AllocsPerRun(10, func() { Policy(np) }); got > 2*n+100 {
		t.Errorf("%d blocks and %d ports cost %.0f allocations, want two for each block", n, n, got)
	}
}

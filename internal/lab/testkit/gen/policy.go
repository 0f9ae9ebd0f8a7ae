// SPDX-License-Identifier: Apache-2.0

package gen

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

func policyNames() []string { return []string{"b-x", "deny", "x"} }

// Policy returns a random policy as the agent would read it.
func Policy(t *rapid.T) *cluster.Policy {
	np := APIPolicy(t)
	if mode := pick(t, "mode", "", "", "", cluster.ModeAudit, cluster.ModeAudit, cluster.ModeEnforce,
		"Audit"); mode != "" {
		np.Annotations = map[string]string{cluster.ModeAnnotation: mode}
	}
	p, _ := convert.Policy(np)
	return p
}

// APIPolicy returns a random policy as a user would write it; some parts are
// not valid.
func APIPolicy(t *rapid.T) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{}
	p.Namespace, p.Name = pick(t, "policy namespace", namespaceNames()...), pick(t, "policy", policyNames()...)
	p.Spec.PodSelector = *selector(t)
	for _, types := range pick(t, "types", "", "I", "I", "E", "E", "IE", "IE", "EI", "II", "?") {
		p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, map[rune]networkingv1.PolicyType{
			'I': networkingv1.PolicyTypeIngress, 'E': networkingv1.PolicyTypeEgress, '?': "Sideways"}[types])
	}
	if n := rapid.IntRange(-1, 3).Draw(t, "ingress"); n >= 0 { // -1 is absent, 0 is empty
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{}
		for range n {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{Ports: policyPorts(t),
				From: peers(t)})
		}
	}
	if n := rapid.IntRange(-1, 3).Draw(t, "egress"); n >= 0 {
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{}
		for range n {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{Ports: policyPorts(t),
				To: peers(t)})
		}
	}
	return p
}

// selector returns a label selector with every operator, now and then one that
// is not valid.
func selector(t *rapid.T) *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if rapid.Bool().Draw(t, "empty selector") {
		return s
	}
	if rapid.Bool().Draw(t, "match labels") {
		s.MatchLabels = map[string]string{pick(t, "key", "app", "tier", "team"): pick(t, "value", "x", "y", "")}
	}
	for range rapid.IntRange(0, 2).Draw(t, "expressions") {
		e := metav1.LabelSelectorRequirement{Key: pick(t, "expression key",
			"app", "tier", "team", "kubernetes.io/metadata.name")}
		e.Operator = pick(t, "operator", metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn,
			metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = pick(t, "values", []string{"x"}, []string{"y", "x"}, []string{"a", "ab"}, []string{"", "x"})
		}
		if rarely(t, "bad selector", 30) {
			e.Operator = "Like"
		}
		s.MatchExpressions = append(s.MatchExpressions, e)
	}
	return s
}

// peers returns nil for absent, an empty list, or one to three peers; now and
// then a long list of blocks.
func peers(t *rapid.T) []networkingv1.NetworkPolicyPeer {
	n := pick(t, "peers", -1, 0, 1, 1, 1, 2, 2, 3, 10)
	if n < 0 {
		return nil
	}
	list := []networkingv1.NetworkPolicyPeer{}
	for range n {
		kind := "block"
		if n < 10 {
			kind = pick(t, "peer", "pods", "pods", "pods here", "namespaces", "both", "block", "block", "none")
		}
		list = append(list, peer(t, kind))
	}
	return list
}

func peer(t *rapid.T, kind string) (p networkingv1.NetworkPolicyPeer) {
	switch kind {
	case "pods", "pods here":
		p.PodSelector = selector(t)
	case "namespaces":
		p.NamespaceSelector = selector(t)
	case "both":
		p.PodSelector, p.NamespaceSelector = selector(t), selector(t)
	case "block":
		p.IPBlock = block(t)
	}
	return p
}

// block returns an IP block around the addresses of the world's pods, with
// holes inside, outside, larger than the block, or not to be understood.
func block(t *rapid.T) *networkingv1.IPBlock {
	v4 := []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/29", "10.0.0.8/29", "10.0.0.3/32", "10.0.0.4/31",
		"192.168.0.1/32", "198.51.100.0/24", "10.0.0.5/24"}
	v6 := []string{"::/0", "fd10::/64", "fd10::/125", "fd10::4/127", "fd10::3/128", "fd00::1/128", "2001:db8::/32"}
	from := pick(t, "block family", v4, v4, v6)
	b := &networkingv1.IPBlock{CIDR: pick(t, "cidr", from...)}
	for range pick(t, "excepts", 0, 0, 0, 1, 1, 2, 3) {
		b.Except = append(b.Except, pick(t, "except", from...))
	}
	if rarely(t, "bad block", 30) {
		b.CIDR = "10.0.0.01/8"
	}
	return b
}

// policyPorts returns nil for absent, an empty list, or one to four entries;
// now and then a long list.
func policyPorts(t *rapid.T) []networkingv1.NetworkPolicyPort {
	n := pick(t, "ports", -1, -1, 0, 1, 1, 2, 3, 12)
	if n < 0 {
		return nil
	}
	list := []networkingv1.NetworkPolicyPort{}
	for i := range n {
		p := policyPort(t)
		if n == 12 { // single ports that do not repeat
			number := intstr.FromInt32(int32(75 + i))
			p.Port, p.EndPort = &number, nil
		}
		list = append(list, p)
	}
	return list
}

func policyPort(t *rapid.T) (p networkingv1.NetworkPolicyPort) {
	if proto := pick(t, "protocol", "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolUDP,
		corev1.ProtocolSCTP, corev1.Protocol("tcp")); proto != "" {
		p.Protocol = &proto
	}
	var number intstr.IntOrString
	switch pick(t, "port", "none", "number", "range", "name", "name", "name", "zero") {
	case "number":
		number = intstr.FromInt32(pick(t, "number", portNumbers()...))
	case "range":
		number = intstr.FromInt32(pick(t, "first", portNumbers()...))
		last := number.IntVal + rapid.Int32Range(-1, 400).Draw(t, "width")
		p.EndPort = &last
	case "name":
		number = intstr.FromString(pick(t, "port name", append(portNames(), "nobody")...))
	case "zero":
		number = intstr.FromInt32(0)
	default:
		return p
	}
	p.Port = &number
	return p
}

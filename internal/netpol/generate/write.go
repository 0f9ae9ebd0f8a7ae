// SPDX-License-Identifier: Apache-2.0

package generate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
)

// The annotations of a generated policy.
const (
	// WindowAnnotation has the times between which flows were seen.
	WindowAnnotation = "podwall.io/seen-window"
	// RuleAnnotation begins the annotations that say of a rule how often and when its flows were
	// seen; the direction and the position of the rule follow, as in podwall.io/seen-ingress-0.
	RuleAnnotation = "podwall.io/seen-"
)

// namePrefix begins the names of generated policies.
const namePrefix = "seen-"

// write returns a policy for each group.
func (g *groups) write(in Input, sides map[side]allowed) (list []*networkingv1.NetworkPolicy) {
	taken := map[cluster.Key]bool{}
	for _, p := range in.Snap.Policies {
		taken[p.Key] = true
	}
	var now *networkingv1.NetworkPolicy
	var of *group
	for _, s := range slices.SortedFunc(maps.Keys(sides), compareSides) {
		if s.subject != of {
			of = s.subject
			now = newPolicy(of, freeName(of, taken), in.From, in.To)
			list = append(list, now)
		}
		addRules(now, s, sides[s])
	}
	return list
}

// freeName returns a name that no policy has: none is replaced.
func freeName(g *group, taken map[cluster.Key]bool) string {
	const longest = 240
	base := namePrefix + g.workloads[0]
	base = strings.TrimRight(base[:min(len(base), longest)], "-.")
	k := cluster.Key{Namespace: g.namespace, Name: base}
	for n := 2; taken[k]; n++ {
		k.Name = fmt.Sprintf("%s-%d", base, n)
	}
	taken[k] = true
	return k.Name
}

func newPolicy(g *group, name string, from, to time.Time) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{Namespace: g.namespace, Name: name,
			Annotations: map[string]string{WindowAnnotation: at(from) + "/" + at(to)}},
		Spec: networkingv1.NetworkPolicySpec{PodSelector: g.selector()},
	}
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// selector selects exactly the pods of the group in its namespace.
func (g *group) selector() (s metav1.LabelSelector) {
	s.MatchLabels = map[string]string{}
	for _, l := range g.labels {
		s.MatchLabels[l.Key] = l.Value
	}
	for _, key := range slices.Compact(slices.Clone(g.without)) {
		s.MatchExpressions = append(s.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpDoesNotExist})
	}
	return s
}

// rule is one rule: its peers have the same ports.
type rule struct {
	peers []peer
	ports []port
	seen  seen
}

// rules returns one rule for each group of pods, and one for all addresses that have the same ports.
func (a allowed) rules() (list []*rule) {
	outside := map[string]*rule{}
	for _, p := range slices.SortedFunc(maps.Keys(a), comparePeers) {
		ports := slices.SortedFunc(maps.Keys(a[p]), comparePorts)
		r := &rule{ports: ports}
		if id := fmt.Sprint(ports); p.pods != nil || outside[id] == nil {
			list = append(list, r)
			if p.pods == nil {
				outside[id] = r
			}
		} else {
			r = outside[id]
		}
		r.peers = append(r.peers, p)
		for _, one := range a[p] {
			r.seen.add(*one)
		}
	}
	return list
}

// addRules adds the rules of one direction.
func addRules(p *networkingv1.NetworkPolicy, s side, a allowed) {
	for i, r := range a.rules() {
		peers, ports := r.api(s.subject.namespace)
		p.Annotations[fmt.Sprintf("%s%s-%d", RuleAnnotation, s.direction, i)] =
			fmt.Sprintf("%d packets, first %s, last %s", r.seen.count, at(r.seen.first), at(r.seen.last))
		if s.direction == egress {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports})
		} else {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports})
		}
	}
	kind := networkingv1.PolicyTypeIngress
	if s.direction == egress {
		kind = networkingv1.PolicyTypeEgress
	}
	p.Spec.PolicyTypes = append(p.Spec.PolicyTypes, kind)
}

func (r *rule) api(namespace string) (peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	for _, p := range r.peers {
		if p.pods == nil {
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{
				CIDR: netip.PrefixFrom(p.address, p.address.BitLen()).String()}})
			continue
		}
		pods := p.pods.selector()
		one := networkingv1.NetworkPolicyPeer{PodSelector: &pods}
		if p.pods.namespace != namespace {
			one.NamespaceSelector = &metav1.LabelSelector{
				MatchLabels: map[string]string{corev1.LabelMetadataName: p.pods.namespace}}
		}
		peers = append(peers, one)
	}
	for _, p := range r.ports {
		protocol, number := corev1.Protocol(strings.ToUpper(p.protocol)), intstr.FromInt32(int32(p.number))
		ports = append(ports, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &number})
	}
	return peers, ports
}

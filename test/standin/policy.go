// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type policy = networkingv1.NetworkPolicy

// types are as the API server has filled them in.
func types(p *policy) (ingress, egress bool) {
	return slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress), slices.Contains(p.Spec.PolicyTypes,
		networkingv1.PolicyTypeEgress)
}

func selects(p *policy, one pod) (bool, error) {
	if p.Namespace != one.namespace {
		return false, nil
	}
	s, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
	return err == nil && s.Matches(one.labels), err
}

// direction is one half of a policy: which end the selected pods are at.
type direction struct {
	policy   *policy
	chain    string
	prefix   string // of names of sets with selected pods
	own, far string // how ipset calls the ends
	selected string // the set of them
}

// policy writes the chain of a policy and its sets, whether or not a pod of this
// node is selected.
func (r *rules) policy(c objects, p *policy, chain string) error {
	r.chains = append(r.chains, chain)
	ingress, egress := types(p)
	if ingress {
		d := direction{policy: p, chain: chain, prefix: "KUBE-DST-", own: "dst", far: "src"}
		if err := r.begin(c, &d); err != nil {
			return err
		}
		for i, rule := range p.Spec.Ingress {
			if err := r.rule(c, d, i, rule.From, rule.Ports); err != nil {
				return err
			}
		}
	}
	if egress {
		d := direction{policy: p, chain: chain, prefix: "KUBE-SRC-", own: "src", far: "dst"}
		if err := r.begin(c, &d); err != nil {
			return err
		}
		for i, rule := range p.Spec.Egress {
			if err := r.rule(c, d, i, rule.To, rule.Ports); err != nil {
				return err
			}
		}
	}
	return nil
}

// begin makes the set of the selected pods, of the whole cluster.
func (r *rules) begin(c objects, d *direction) error {
	s, err := metav1.LabelSelectorAsSelector(&d.policy.Spec.PodSelector)
	if err != nil {
		return err
	}
	d.selected = named(d.prefix, d.policy.Namespace, d.policy.Name)
	r.sets = append(r.sets, set{d.selected,
		"hash:ip", c.addrs(func(p pod) bool { return p.namespace == d.policy.Namespace && s.Matches(p.labels) })})
	return nil
}

// rule writes a pair of rules for each kind of peers and each port: one sets the
// mark, one goes back.
func (r *rules) rule(c objects, d direction, i int, peers []networkingv1.NetworkPolicyPeer,
	ports []networkingv1.NetworkPolicyPort) error {
	ends, err := r.peers(c, d, i, peers)
	if err != nil {
		return err
	}
	matches := []string{""}
	if len(ports) > 0 {
		if matches, err = portMatches(ports); err != nil {
			return err
		}
	}
	note := fmt.Sprintf(` -m comment --comment "policy %s/%s"`, d.policy.Namespace, d.policy.Name)
	for _, end := range ends {
		for _, port := range matches {
			match := strings.TrimSpace(fmt.Sprintf("%s -m set --match-set %s %s%s%s", end, d.selected, d.own, port,
				note))
			r.add(d.chain, match+" -j MARK --set-xmark "+allowed)
			r.add(d.chain, match+" -m mark --mark "+allowed+" -j RETURN")
		}
	}
	return nil
}

// peers makes a set of the pods and one of the blocks that a rule names, and
// returns a match for each; no peers are everybody.
func (r *rules) peers(c objects, d direction, i int, peers []networkingv1.NetworkPolicyPeer) (ends []string,
	err error) {
	if len(peers) == 0 {
		return []string{""}, nil
	}
	var blocks []string
	var wanted []func(pod) bool
	for _, p := range peers {
		if p.IPBlock != nil {
			blocks = append(blocks, entries(*p.IPBlock)...)
			continue
		}
		f, err := matcher(c, d.policy.Namespace, p)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, f)
	}
	add := func(kind string, list []string) {
		name := named("KUBE-PEER-", d.policy.Namespace, d.policy.Name, d.far, strconv.Itoa(i), kind)
		r.sets = append(r.sets, set{name, kind, list})
		ends = append(ends, "-m set --match-set "+name+" "+d.far)
	}
	if len(wanted) > 0 {
		add("hash:ip", c.addrs(func(p pod) bool {
			return slices.ContainsFunc(wanted, func(f func(pod) bool) bool { return f(p) })
		}))
	}
	if len(wanted) < len(peers) {
		add("hash:net", blocks)
	}
	return ends, nil
}

// matcher is a peer that is given by labels.
func matcher(c objects, namespace string, peer networkingv1.NetworkPolicyPeer) (func(pod) bool, error) {
	pods, spaces := labels.Everything(), labels.Nothing()
	var err error
	if peer.PodSelector != nil {
		if pods, err = metav1.LabelSelectorAsSelector(peer.PodSelector); err != nil {
			return nil, err
		}
	}
	if peer.NamespaceSelector != nil {
		if spaces, err = metav1.LabelSelectorAsSelector(peer.NamespaceSelector); err != nil {
			return nil, err
		}
	}
	return func(p pod) bool {
		inside := p.namespace == namespace
		if peer.NamespaceSelector != nil {
			inside = spaces.Matches(c.namespaces[p.namespace])
		}
		return inside && pods.Matches(p.labels)
	}, nil
}

// addrs are those of the pods wanted, each once.
func (c objects) addrs(wanted func(pod) bool) (list []string) {
	for _, p := range c.pods {
		if wanted(p) {
			list = append(list, p.addr.String())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// entries are those of a block. A set has no entry for everything, so that is
// two halves. Blocks of IPv6 have none here.
func entries(b networkingv1.IPBlock) (list []string) {
	for i, cidr := range append([]string{b.CIDR}, b.Except...) {
		p, err := netip.ParsePrefix(cidr)
		if err != nil || !p.Addr().Is4() {
			continue
		}
		parts := []string{p.Masked().String()}
		if p.Bits() == 0 {
			parts = []string{"0.0.0.0/1", "128.0.0.0/1"}
		}
		for _, part := range parts {
			if i > 0 {
				part += " nomatch"
			}
			list = append(list, part)
		}
	}
	return list
}

func portMatches(ports []networkingv1.NetworkPolicyPort) (list []string, err error) {
	for _, p := range ports {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		name := strings.ToLower(string(protocol))
		match := fmt.Sprintf(" -p %s -m %[1]s", name)
		switch {
		case p.Port != nil && p.Port.Type == intstr.String:
			return nil, errors.New("a named port: the stand-in knows numbers only")
		case p.Port != nil && p.EndPort != nil:
			match += fmt.Sprintf(" --dport %d:%d", p.Port.IntVal, *p.EndPort)
		case p.Port != nil:
			match += fmt.Sprintf(" --dport %d", p.Port.IntVal)
		}
		list = append(list, match)
	}
	return list, nil
}

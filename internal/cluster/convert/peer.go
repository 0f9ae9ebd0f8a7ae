// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
)

const matchesNothing = "this peer matches nothing"

// peers reads from or to. The API: "If this field is empty or missing, this rule matches all
// sources." A list whose entries were all dropped is not empty: it matches no peer.
func (r *reader) peers(field string, list []networkingv1.NetworkPolicyPeer) cluster.Peers {
	if len(list) == 0 {
		return cluster.Peers{Any: true}
	}
	var peers cluster.Peers
	r.each(field, len(list), func(i int) {
		if p, ok := r.peer("", &list[i]); ok {
			peers.List = appendOf(len(list), peers.List, p)
		}
	})
	return peers
}

func (r *reader) peer(field string, p *networkingv1.NetworkPolicyPeer) (cluster.Peer, bool) {
	selects := p.PodSelector != nil || p.NamespaceSelector != nil
	switch {
	case p.IPBlock != nil && selects:
		// "If this field is set then neither of the other fields can be."
		r.fail(field, "ipBlock is combined with a selector: "+matchesNothing, "make them two entries of the list")
		return cluster.Peer{}, false
	case p.IPBlock != nil:
		b, ok := r.block(field+".ipBlock", p.IPBlock)
		return cluster.Peer{Block: b}, ok
	case selects:
		return r.podPeer(field, p)
	}
	r.fail(field, "the peer is empty: "+matchesNothing, "set podSelector, namespaceSelector or ipBlock; "+
		"podSelector: {} means every pod of the policy's namespace")
	return cluster.Peer{}, false
}

// podPeer reads the two selectors. Without namespaceSelector "it selects the
// pods matching podSelector in the policy's own namespace"; without podSelector
// "it selects all pods in the namespaces selected by namespaceSelector".
func (r *reader) podPeer(field string, p *networkingv1.NetworkPolicyPeer) (cluster.Peer, bool) {
	peer := cluster.Peer{Pods: cluster.Everything()}
	understood := true
	if p.PodSelector != nil {
		s, ok := r.selector(field+".podSelector", p.PodSelector, matchesNothing)
		peer.Pods, understood = s, ok
	}
	if p.NamespaceSelector != nil {
		s, ok := r.selector(field+".namespaceSelector", p.NamespaceSelector, matchesNothing)
		peer.Namespaces, understood = &s, understood && ok
	}
	return peer, understood
}

// selector reads a label selector; consequence is the effect of one that cannot be read.
func (r *reader) selector(field string, s *metav1.LabelSelector, consequence string) (cluster.Selector, bool) {
	parsed, err := parseSelector(s)
	if err != nil {
		r.fail(field, fmt.Sprintf("bad label selector, %v: %s", err, consequence),
			"use the operators In and NotIn with values, Exists and DoesNotExist without, and valid label keys and "+
				"values")
		return cluster.Selector{}, false
	}
	return cluster.NewSelector(canonical(parsed)), true
}

// parseSelector leaves the meaning to upstream. If several labels are bad it reports the first by
// name, not the first in the order of the map.
func parseSelector(s *metav1.LabelSelector) (labels.Selector, error) {
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err == nil {
		return parsed, nil
	}
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		one := metav1.LabelSelector{MatchLabels: map[string]string{key: s.MatchLabels[key]}}
		if _, err := metav1.LabelSelectorAsSelector(&one); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// canonical sorts requirements by their whole text and drops duplicates. Selectors that differ only
// in order must have the same text, and the order must not depend on the map order of matchLabels.
func canonical(s labels.Selector) labels.Selector {
	reqs, _ := s.Requirements()
	if len(reqs) < 2 {
		return s
	}
	texts := make(map[string]labels.Requirement, len(reqs))
	for _, q := range reqs {
		texts[q.String()] = q
	}
	names := make([]string, 0, len(texts))
	for text := range texts {
		names = append(names, text)
	}
	slices.Sort(names)
	sorted := make([]labels.Requirement, len(names))
	for i, text := range names {
		sorted[i] = texts[text]
	}
	return labels.NewSelector().Add(sorted...)
}

// block reads an IP block. An except range that cannot be read closes the whole block: without it
// the block would allow more than was written.
func (r *reader) block(field string, raw *networkingv1.IPBlock) (*cluster.IPBlock, bool) {
	cidr, ok := r.prefix(field+".cidr", raw.CIDR)
	b := &cluster.IPBlock{CIDR: cidr}
	if len(raw.Except) == 0 {
		return b, ok
	}
	r.each(field+".except", len(raw.Except), func(i int) {
		except, understood := r.prefix("", raw.Except[i])
		ok = ok && understood
		if ok {
			ok = r.hole("", cidr, except)
			b.Except = append(b.Except, except)
		}
	})
	return b, ok
}

// hole checks an except range against its block and reports whether the block can be used with it.
func (r *reader) hole(field string, cidr, except netip.Prefix) bool {
	switch {
	case cidr.Addr().Is4() != except.Addr().Is4():
		r.fail(field, fmt.Sprintf("%s is not of the family of %s: %s", except, cidr, matchesNothing),
			"write an exception of the same family, in one block for each family")
		return false
	case !cidr.Overlaps(except):
		r.warn(field, fmt.Sprintf("%s lies outside %s: it takes nothing away", except, cidr),
			"remove it, or correct the block")
	case except.Bits() <= cidr.Bits():
		r.warn(field, fmt.Sprintf("%s covers all of %s: %s", except, cidr, matchesNothing),
			"make the exception smaller than the block")
	}
	return true
}

// prefix reads a CIDR. A text that other programs may read differently is read as the API server
// reads it, with a warning (ADR 0020).
func (r *reader) prefix(field, text string) (netip.Prefix, bool) {
	p, usual, err := parseCIDR(text)
	switch {
	case err != nil:
		r.fail(field, fmt.Sprintf("%q is no CIDR: %s", text, matchesNothing),
			"write it as 192.0.2.0/24 or 2001:db8::/64, without spaces or zone")
		return netip.Prefix{}, false
	case !usual:
		r.warn(field, fmt.Sprintf("%q is read as %s, as the API server does; other programs refuse it or read "+
			"something else",
			text, p.Masked()), "write "+p.Masked().String())
	case p != p.Masked():
		r.warn(field, fmt.Sprintf("%s has bits set behind the prefix: read as %s", text, p.Masked()),
			"write "+p.Masked().String())
	}
	return p.Masked(), true
}

// SPDX-License-Identifier: Apache-2.0

// Package oracle is the first witness: it reads the text of the NetworkPolicy API as literally as
// it can and says whether a flow is allowed, and why.
//
// It is naive on purpose: it reads every pod and every policy for every question, keeps nothing,
// and shares no code with packages policy and compile except the values of package cluster. The
// agent never uses it. Tests and the commands for people (explain, can) do. The API's own words,
// shortened, are quoted at each step; docs/design/semantics.md has the whole reading.
package oracle

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// Judge says whether the first packet of a flow is allowed: by the egress side of its source and by
// the ingress side of its destination. Replies belong to their flow and are not judged separately.
func Judge(snap *cluster.Snapshot, f Flow) Answer {
	src, dst, ok := parties(snap, f)
	if !ok {
		return Answer{} // an end that does not exist: nothing to allow
	}
	// "A pod cannot block access to itself."
	if src.pod != nil && src.pod == dst.pod {
		return Answer{Allowed: true, Egress: Reason{Cause: Self}, Ingress: Reason{Cause: Self}}
	}
	q := question{snap: snap, flow: f, dst: dst.pod}
	a := Answer{
		Egress:  q.side(Egress, src, dst),
		Ingress: q.side(Ingress, dst, src),
	}
	// "Both the egress policy on the source and the ingress policy on the
	// destination need to allow the connection."
	a.Allowed = a.Egress.Allowed() && a.Ingress.Allowed()
	return a
}

// Audit says what the policies in audit mode would do to a flow if they were enforced, in the directions
// in which no policy is: in others they only add. Allowed is true if they would deny it in neither.
func Audit(snap *cluster.Snapshot, f Flow) Answer {
	now := Judge(snap, f)
	src, dst, ok := parties(snap, f)
	if !ok || now.Egress.Cause == Self {
		return now
	}
	q := question{snap: snap, flow: f, dst: dst.pod, audit: true}
	a := now
	if now.Egress.Cause == NotIsolated {
		a.Egress = q.side(Egress, src, dst)
	}
	if now.Ingress.Cause == NotIsolated {
		a.Ingress = q.side(Ingress, dst, src)
	}
	a.Allowed = !WouldDeny(now.Egress, a.Egress) && !WouldDeny(now.Ingress, a.Ingress)
	return a
}

// WouldDeny reports whether a side that allows now would deny by policies in audit mode.
func WouldDeny(now, audited Reason) bool { return now.Cause == NotIsolated && audited.Cause == NoRule }

// question is one flow, with the facts that every step needs.
type question struct {
	snap *cluster.Snapshot
	flow Flow
	dst  *cluster.Pod // nil if the destination is not a pod
	// audit asks the policies in audit mode instead of those that are enforced.
	audit bool
}

// side judges one direction, seen from the subject.
func (q question) side(dir Direction, subject, peer party) Reason {
	if subject.pod == nil {
		return Reason{Cause: NoSubject}
	}
	// "Allowed if there are no NetworkPolicies selecting the pod."
	isolating := q.isolating(dir, subject.pod)
	r := Reason{Cause: NotIsolated, Isolating: keys(isolating)}
	if len(isolating) == 0 {
		return r
	}
	// "OR if the traffic source is the pod's local node": ingress only, the egress field has no
	// such words.
	if dir == Ingress && peer.node != "" && peer.node == subject.pod.Node {
		r.Cause = OwnNode
		return r
	}
	// "OR if the traffic matches at least one rule across all of the
	// NetworkPolicy objects": policies only ever add.
	r.Cause = NoRule
	for _, p := range isolating {
		for _, rule := range rules(p, dir) {
			m, miss := q.rule(p, rule, peer)
			if miss == nil {
				m.Policy, m.Direction, m.Rule = p.Key, dir, rule.Index
				return Reason{Cause: Rule, Isolating: r.Isolating, Match: m}
			}
			miss.Policy, miss.Direction, miss.Rule = p.Key, dir, rule.Index
			r.Nearest = nearer(r.Nearest, miss)
		}
	}
	return r
}

// isolating returns the policies that select the pod for a direction, those
// "whose podSelector matches the pod" in the policy's own namespace.
func (q question) isolating(dir Direction, pod *cluster.Pod) []*cluster.Policy {
	var list []*cluster.Policy
	for _, p := range q.snap.Policies {
		isolates := dir == Ingress && p.IsolatesIngress || dir == Egress && p.IsolatesEgress
		if isolates && p.Key.Namespace == pod.Key.Namespace && p.Subject.Matches(pod.Labels) &&
			q.audited(p) == q.audit {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *cluster.Policy) int { return a.Key.Compare(b.Key) })
	return list
}

// audited reports whether a policy is in audit mode: by its own annotation, or, if it has none, by that of
// its namespace.
func (q question) audited(p *cluster.Policy) bool {
	if p.OwnMode || !q.snap.AuditNamespaces {
		return p.Audit && !p.ByNamespace
	}
	i := slices.IndexFunc(q.snap.Namespaces, func(n *cluster.Namespace) bool { return n.Name == p.Key.Namespace })
	return p.Audit && !p.ByNamespace || i >= 0 && q.snap.Namespaces[i].Mode == cluster.ModeAudit
}

// rule matches one rule. "The traffic must match both ports and from" (or to). A miss records how
// close the rule was.
func (q question) rule(p *cluster.Policy, r cluster.Rule, peer party) (*Match, *Miss) {
	from, far := q.peers(p, r.Peers, peer)
	port := q.ports(r.Ports)
	if from != none && port != none {
		return &Match{Peer: from, Port: port}, nil
	}
	return nil, &Miss{PeerMatches: from != none, PortMatches: port != none, far: far,
		wide: from != none && !q.meant(p, r.Peers, peer),
		Why:  q.why(r, from, port, far)}
}

// peers returns the position of the first item that matches, anyItem, or none.
// "Items are combined using a logical OR. If this field is empty or missing,
// this rule matches all sources."
func (q question) peers(p *cluster.Policy, list cluster.Peers, peer party) (int, distance) {
	if list.Any {
		return anyItem, distance{}
	}
	best := distance{}
	for i, item := range list.List {
		d := q.peer(p, item, peer)
		if d.step == matched {
			return i, d
		}
		if d.peer = i; d.step > best.step {
			best = d
		}
	}
	return none, best
}

// peer matches one item of from or to.
func (q question) peer(p *cluster.Policy, item cluster.Peer, peer party) distance {
	if item.Block != nil {
		// "A particular CIDR that is allowed": every owner of the address. The text does not
		// exclude pods, so pods are matched as well.
		if nearby(peer) && !onOneLink(item.Block.CIDR) {
			return distance{step: onTheLink}
		}
		return block(item.Block, peer.addr)
	}
	// A selector "selects pods". A node, a host-network pod or an outside address is not one.
	if peer.pod == nil {
		return distance{step: noPod}
	}
	// "…in the namespaces selected by namespaceSelector. Otherwise … in the
	// policy's own namespace."
	if !q.namespaceMatches(p, item.Namespaces, peer.pod.Key.Namespace) {
		return distance{step: otherNamespace}
	}
	switch {
	case item.Pods.Matches(peer.pod.Labels):
	case unmet(item.Pods.Text(), peer.pod.Labels) == 1:
		return distance{step: otherLabel}
	default:
		return distance{step: otherLabels}
	}
	return distance{step: matched}
}

func (q question) namespaceMatches(p *cluster.Policy, sel *cluster.Selector, name string) bool {
	if sel == nil {
		return name == p.Key.Namespace
	}
	for _, ns := range q.snap.Namespaces {
		if ns.Name == name {
			return sel.Matches(ns.Labels)
		}
	}
	return false // labels not known yet: not even {} may match
}

// nearby reports whether the peer is a pod by another address: a link-local one means a host on the
// same link, and where pods are that is a pod.
func nearby(peer party) bool {
	return peer.node == "" && !peer.beyond && peer.addr.IsLinkLocalUnicast()
}

// onOneLink reports whether all addresses of a block are link-local: then its author meant the
// hosts on the link.
func onOneLink(p netip.Prefix) bool {
	bits := 10 // fe80::/10
	if p.Addr().Is4() {
		bits = 16 // 169.254.0.0/16
	}
	return p.Bits() >= bits && p.Addr().IsLinkLocalUnicast()
}

// block: "except describes CIDRs that should not be included".
func block(b *cluster.IPBlock, a netip.Addr) distance {
	if !b.CIDR.Contains(a) {
		return distance{step: outsideBlock}
	}
	for _, e := range b.Except {
		if e.Contains(a) {
			return distance{step: inExcept}
		}
	}
	return distance{step: matched}
}

// ports returns the position of the first item that matches, anyItem, or none.
// "Combined using a logical OR. If this field is empty or missing, this rule
// matches all ports": of every protocol, also of those the API cannot name.
func (q question) ports(list cluster.Ports) int {
	if list.Any {
		return anyItem
	}
	for i, item := range list.List {
		if q.port(item) {
			return i
		}
	}
	return none
}

// port matches one item: "only traffic on the specified protocol AND port".
func (q question) port(item cluster.Port) bool {
	switch {
	case item.Protocol != q.flow.Protocol:
		return false
	case item.Any: // "If this field is not provided, this matches all port names and numbers."
		return true
	case item.Name == "": // "The range of ports from port to endPort, inclusive."
		return item.First <= q.flow.Port && q.flow.Port <= item.Last
	case q.dst == nil: // "A numerical or named port on a pod": no pod, no name
		return false
	}
	return slices.Contains(q.dst.NamedPorts(),
		cluster.NamedPort{Name: item.Name, Protocol: item.Protocol, Port: q.flow.Port})
}

func rules(p *cluster.Policy, dir Direction) []cluster.Rule {
	if dir == Ingress {
		return p.Ingress
	}
	return p.Egress
}

func keys(list []*cluster.Policy) []cluster.Key {
	var out []cluster.Key
	for _, p := range list {
		out = append(out, p.Key)
	}
	return out
}

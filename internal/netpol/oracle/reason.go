// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"fmt"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
)

// Answer is a verdict and the reason of each side.
type Answer struct {
	Allowed bool
	// Egress is the side of the source, Ingress the side of the destination.
	Egress, Ingress Reason
}

// String returns one line for people.
func (a Answer) String() string {
	verdict := "denied"
	if a.Allowed {
		verdict = "allowed"
	}
	return fmt.Sprintf("%s; egress: %s; ingress: %s", verdict, a.Egress, a.Ingress)
}

// Cause is the fact that decided one side.
type Cause uint8

// The causes. The zero value denies: an end of the flow does not exist.
const (
	NoSuchEnd   Cause = iota
	NoSubject         // this end is not a pod with a network of its own: policies do not apply to it
	NotIsolated       // no policy of this direction selects the pod
	Self              // a pod to itself
	OwnNode           // the node to its own pod
	Rule              // a rule allows it, see Match
	NoRule            // isolated, and no rule allows it, see Nearest
)

// Reason is why one side allows or denies a flow.
type Reason struct {
	Cause Cause
	// Isolating are the policies that select the pod in this direction, sorted.
	// Empty means not isolated.
	Isolating []cluster.Key
	// Match is the rule that allows, if Cause is Rule.
	Match *Match
	// Nearest is the rule that came closest, if Cause is NoRule. Nil if the isolating policies have
	// no rule at all.
	Nearest *Miss
}

// Allowed reports whether this side allows the flow.
func (r Reason) Allowed() bool { return r.Cause != NoSuchEnd && r.Cause != NoRule }

// Isolated reports whether a policy selects the pod in this direction.
func (r Reason) Isolated() bool { return len(r.Isolating) > 0 }

// String returns a phrase for people.
func (r Reason) String() string {
	switch r.Cause {
	case NoSubject:
		return "not a pod that policies apply to"
	case NotIsolated:
		return "not isolated"
	case Self:
		return "a pod to itself"
	case OwnNode:
		return "the pod's own node"
	case Rule:
		return "allowed by " + r.Match.String()
	case NoRule:
		names := make([]string, len(r.Isolating))
		for i, k := range r.Isolating {
			names[i] = k.String()
		}
		s := "isolated by " + strings.Join(names, ", ") + ", no rule allows it"
		if r.Nearest != nil {
			s += "; nearest is " + r.Nearest.String()
		}
		return s
	}
	return "no such pod or address"
}

// Match is the part of a policy that allows a flow.
type Match struct {
	Policy    cluster.Key
	Direction Direction
	// Rule is the position in the API object.
	Rule int
	// Peer and Port are positions among the items that were understood, or -1 if the field is empty
	// or missing and so matches everything.
	Peer, Port int
}

// String returns policy and position, as in shop/web ingress[0] peer 1 port 0.
func (m *Match) String() string {
	return fmt.Sprintf("%s %s[%d] %s %s", m.Policy, m.Direction, m.Rule, item("peer", m.Peer), item("port", m.Port))
}

func item(kind string, i int) string {
	if i == anyItem {
		return "any " + kind
	}
	return fmt.Sprintf("%s %d", kind, i)
}

// Miss is a rule that does not allow a flow, and why.
type Miss struct {
	Policy    cluster.Key
	Direction Direction
	Rule      int
	// PeerMatches and PortMatches are not both true.
	PeerMatches, PortMatches bool
	Why                      string
	far                      distance
	// wide: the peer matches items only that every peer matches.
	wide bool
}

// String returns policy, position and reason.
func (m *Miss) String() string {
	return fmt.Sprintf("%s %s[%d]: %s", m.Policy, m.Direction, m.Rule, m.Why)
}

// Values of a position that are not a position.
const (
	anyItem = -1 // the field is empty or missing
	none    = -2 // no item matches
)

// distance is how closely an item of from or to missed.
type distance struct {
	step step
	peer int
}

// step orders the ways to miss, the most distant first.
type step uint8

const (
	noItem step = iota // nothing in the list was understood
	outsideBlock
	noPod
	otherNamespace
	inExcept
	onTheLink
	otherLabels
	otherLabel // a single requirement is not met
	matched
)

// nearer prefers a rule whose peer matches to one whose port matches, and among equals the one
// whose peers came closer, then the first. A rule for everybody does not mean this peer: one that
// lacks a single label comes before it.
func nearer(a, b *Miss) *Miss {
	if a == nil || b.rank() > a.rank() {
		return b
	}
	return a
}

func (m *Miss) rank() int {
	switch {
	case m.PeerMatches && !m.wide:
		return 200
	case !m.PeerMatches && m.PortMatches && m.far.step == otherLabel:
		return 180
	case m.PeerMatches:
		return 150
	case m.PortMatches:
		return 100 + int(m.far.step)
	}
	return int(m.far.step)
}

// why describes a miss in words.
func (q question) why(r cluster.Rule, from, port int, far distance) string {
	switch {
	case port != none:
		return "port matches, but " + far.String()
	case from != none:
		return "peer matches, but " + q.whyPort(r.Ports)
	}
	return far.String() + ", and " + q.whyPort(r.Ports)
}

func (d distance) String() string {
	switch d.step {
	case noItem:
		return "it has no peer"
	case outsideBlock:
		return fmt.Sprintf("peer %d: the address is outside the block", d.peer)
	case noPod:
		return fmt.Sprintf("peer %d selects pods, and this is none", d.peer)
	case otherNamespace:
		return fmt.Sprintf("peer %d: the namespace is another", d.peer)
	case inExcept:
		return fmt.Sprintf("peer %d: the address is in an except", d.peer)
	case onTheLink:
		return fmt.Sprintf("peer %d: a link-local address of a pod is only in a block of link-local addresses", d.peer)
	case otherLabels, otherLabel:
		return fmt.Sprintf("peer %d: the namespace matches, the pod's labels do not", d.peer)
	}
	return fmt.Sprintf("peer %d matches", d.peer)
}

func (q question) whyPort(ports cluster.Ports) string {
	if len(ports.List) == 0 {
		return "it has no port"
	}
	list := make([]string, len(ports.List))
	unresolved := ""
	for i, p := range ports.List {
		list[i] = p.String()
		if p.Name != "" && !q.declares(p) {
			unresolved = fmt.Sprintf(" (the destination declares no %s)", p)
		}
	}
	return "no port matches: " + strings.Join(list, ", ") + unresolved
}

func (q question) declares(p cluster.Port) bool {
	if q.dst == nil {
		return false
	}
	for _, d := range q.dst.NamedPorts() {
		if d.Name == p.Name && d.Protocol == p.Protocol {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

// Package program holds the backend-neutral program: the conditions under which packets of this
// node are accepted. Package compile writes it, a backend renders it, and Eval interprets it as the
// second witness next to the kernel.
//
// It knows nothing of Kubernetes and nothing of nftables. A program has three parts: the local pods
// with the chain of each direction, the chains (lists of rules that allow; a packet that no rule
// allows is dropped), and the named sets that the rules refer to. The fixed order in which a packet
// passes them is written once, in Eval, and rendered once, in the backend:
//
//  1. a pod talking to itself is allowed;
//  2. the egress chain of the source, if it is a local pod with one and not the
//     node itself, whatever address a pod claims;
//  3. the ingress chain of the destination, likewise, which also accepts
//     everything that the node itself sends.
package program

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Direction is a direction of traffic, seen from the pod.
type Direction uint8

// The directions.
const (
	Ingress Direction = iota + 1
	Egress
)

// String returns "ingress" or "egress".
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Program is the policy that the kernel of one node must enforce. It is immutable once published
// and complete: two equal programs have the same text.
type Program struct {
	// Pods are the addresses of the local pods, sorted by address.
	Pods []Pod
	// Chains are sorted by name; each is referred to by at least one pod.
	Chains []*Chain
	// Sets are sorted by name; each is referred to by at least one rule.
	Sets []*Set
}

// Pod is one address of a local pod and the chains for it.
type Pod struct {
	Addr netip.Addr
	Name string // namespace/name, for people
	// ID distinguishes a pod from a later one with the same name and address; empty if it is not
	// known.
	ID string
	// Tenant is the account that pays for the cost of the pod's policies: the pod's namespace. It
	// changes no verdict.
	Tenant string
	// Ingress and Egress name the chain of the direction. Empty means not
	// isolated: all traffic is allowed.
	Ingress, Egress string
	// AuditIngress and AuditEgress name the chain of a direction that is not isolated, by which it is
	// only found out what would be dropped. They change no verdict. Empty means nothing.
	AuditIngress, AuditEgress string
}

// Chain is a list of rules for the pods that share the same policies. A packet that no rule allows
// is dropped. The name is derived from the content.
type Chain struct {
	Name      string
	Direction Direction
	Family    inet.Family
	// Rules are alternatives: their order does not matter for the verdict.
	Rules []Rule
}

// Rule allows a packet that matches all of its conditions. A condition with the zero value matches
// every packet.
type Rule struct {
	Protocol inet.Protocol
	// Ports is a range of destination ports; Protocol is then set.
	Ports inet.PortRange
	// PortSet names a set of kind PortRanges; Protocol is then set.
	PortSet string
	// Block is the peer as a prefix minus except ranges.
	Block Block
	// Place is where the peer must be, in addition to its address.
	Place Place
	// PeerSet names a set of kind Addrs or AddrRanges that the peer is in. The
	// peer is the source in an ingress chain, the destination in an egress chain.
	PeerSet string
	// DestSet names a set of kind AddrPorts that destination address and port
	// are in; Protocol is then set.
	DestSet string
	// Comment names the origin of the rule, for people.
	Comment string
	// Origins are the rules of the API that it was compiled from. They change no
	// verdict and are not in the rule's text.
	Origins []Origin
}

// Place is where a peer is. Rules use it for link-local addresses only: on each link these belong
// to another host.
type Place uint8

// The places. The zero value is no condition.
const (
	Anywhere  Place = iota
	Elsewhere       // behind an interface without pods
	OnNode          // the destination is delivered to the node itself
)

// String returns the text of the place in a rule.
func (p Place) String() string {
	return [...]string{Anywhere: "anywhere", Elsewhere: "elsewhere", OnNode: "on the node"}[p]
}

// Block is a prefix minus except ranges. The zero value means no constraint.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

// Any reports whether the block is no constraint.
func (b Block) Any() bool { return !b.CIDR.IsValid() }

// Contains reports whether the address is in the block and in none of its except ranges, or the
// block is no constraint.
func (b Block) Contains(a netip.Addr) bool {
	if b.Any() {
		return true
	}
	for _, e := range b.Except {
		if e.Contains(a) {
			return false
		}
	}
	return b.CIDR.Contains(a)
}

// Flow is the input of Eval: the first packet of a connection, after destination NAT and before
// source NAT.
type Flow struct {
	Protocol inet.Protocol
	Src, Dst netip.Addr
	// DstPort is 0 for protocols without ports.
	DstPort uint16
	// FromNode is true if the source address is one of this node's own.
	FromNode bool
	// ToNode is true if the packet is delivered to the node itself; then only the egress of the
	// source is judged.
	ToNode bool
	// SrcElsewhere and DstElsewhere are true if the packet arrives or leaves by an interface
	// without pods. They matter for link-local addresses: if this is not known, such an address is
	// on a pod's interface.
	SrcElsewhere, DstElsewhere bool
}

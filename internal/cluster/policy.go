// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
)

// Policy is a NetworkPolicy after defaulting and parsing. It does not contain the parts that could
// not be understood (see package convert): the smallest such part matches nothing, the isolation
// stays.
type Policy struct {
	Key Key
	UID string
	// Version is the object's resource version, to be compared for equality; empty from manifests.
	// It is not part of the meaning.
	Version string
	// Audit is true if the policy is not enforced: it is only found out what it would deny. It
	// matters where no other policy isolates the pod in the direction.
	Audit bool
	// OwnMode is true if the policy is annotated with a mode, be it one or not: that of its namespace has
	// no effect on it. ByNamespace is true if it is in audit mode because of its namespace; the Store
	// sets it.
	OwnMode, ByNamespace bool
	// Subject selects the pods of the policy's namespace that it isolates.
	Subject Selector
	// IsolatesIngress and IsolatesEgress are the policy types after defaulting.
	IsolatesIngress bool
	IsolatesEgress  bool
	// Ingress and Egress are the rules, in the order of the API. The rules of a direction that the
	// policy does not isolate are left out: they have no effect.
	Ingress []Rule
	Egress  []Rule

	leftOut int // the size of the rules that are missing for lack of room; see Budgets
}

// Rule allows the traffic that matches one of its peers and one of its ports.
type Rule struct {
	// Index is the position in the API object. It differs from the position here if an earlier rule
	// was dropped.
	Index int
	Peers Peers
	Ports Ports
}

// Peers are the other side of a rule. "No constraint" and "empty" differ: the zero value matches no
// peer.
type Peers struct {
	// Any is true when the API field was absent or empty: every peer matches.
	Any  bool
	List []Peer
}

// Peer is either pods (Block is nil) or an IP block.
type Peer struct {
	// Namespaces matches the namespaces of the peer pods. Nil means the
	// policy's own namespace.
	Namespaces *Selector
	Pods       Selector
	Block      *IPBlock
}

// IPBlock is a CIDR minus its except ranges.
type IPBlock struct {
	CIDR netip.Prefix
	// Except are masked prefixes of the family of CIDR; they need not be inside it.
	Except []netip.Prefix
}

// Contains reports whether the address is in CIDR and in none of the except ranges.
func (b *IPBlock) Contains(a netip.Addr) bool {
	if !b.CIDR.Contains(a) {
		return false
	}
	for _, e := range b.Except {
		if e.Contains(a) {
			return false
		}
	}
	return true
}

// Ports are the ports of a rule. As with Peers, the zero value matches none.
type Ports struct {
	// Any is true when the API field was absent or empty: every port of every protocol matches,
	// even of protocols that the API cannot name.
	Any  bool
	List []Port
}

// Port is one entry of a rule's ports.
type Port struct {
	Protocol Protocol
	// Any means every port of Protocol; then the other fields are zero.
	Any bool
	// Name is a named port, resolved per destination pod; First and Last are
	// then zero.
	Name string
	// First and Last are the range, both inclusive; equal for a single port.
	First, Last uint16
}

// String returns the notation of scenarios, logs and the command line: tcp:80, udp:5000-5010,
// tcp:http or sctp.
func (p Port) String() string {
	proto := map[Protocol]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}[p.Protocol]
	switch {
	case p.Any:
		return proto
	case p.Name != "":
		return proto + ":" + p.Name
	case p.First == p.Last:
		return fmt.Sprintf("%s:%d", proto, p.First)
	}
	return fmt.Sprintf("%s:%d-%d", proto, p.First, p.Last)
}

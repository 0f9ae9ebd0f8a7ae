// SPDX-License-Identifier: Apache-2.0

// Package cut decides which connections that exist must end, because the program
// of this node denies them now or because an address of theirs has another
// owner. A nat chain judges the first packet of a connection only, so the
// connection table is the memory of old verdicts; this package judges the table.
//
// It is pure: package conntrack reads the entries, package datapath deletes them
// and has package ruleset refuse what would revive them. It never looks at a kernel
// and never at a policy. Where it stands: after a change of the program was
// committed, beside the data path.
package cut

import (
	"fmt"
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Reason says why a connection must end.
type Reason uint8

// The reasons.
const (
	// Ingress and Egress: the policies of that direction deny it.
	Ingress Reason = iota + 1
	Egress
	// Reused: an address of it belongs to another pod now.
	Reused
	// Gone: the pod that had an address of it is gone.
	Gone
)

// String returns the word for logs and metrics.
func (r Reason) String() string {
	switch r {
	case Ingress:
		return "ingress"
	case Egress:
		return "egress"
	case Reused:
		return "reused"
	case Gone:
		return "gone"
	}
	return "none"
}

// Cut is a connection that must end.
type Cut struct {
	Entry  inet.Connection
	Reason Reason
	// Addr is the pod's address, for a reused one that which was reused, for what
	// goes to a group the group's.
	Addr netip.Addr
	// Pod is the pod whose policies or whose address it is about; empty for a group,
	// and if the address has no pod any more. Chain is what denies it.
	Pod, Chain string
	// Tenant is the namespace of that pod, or of the pod that sends to a group; empty
	// if nobody knows it any more.
	Tenant string
	// Flow is the connection as its first packet met the chains. For an entry that
	// stands the wrong way round it is the other way than the entry.
	Flow program.Flow
	// Revival is what the answering end sends if it goes on to talk. It would begin
	// a new connection in the other direction, which nobody may deny. Zero if no
	// such packet can be told from a legitimate one.
	Revival program.Refused
}

// String returns the connection for people.
func (c Cut) String() string {
	return fmt.Sprintf("%s %s > %s", c.Flow.Protocol, c.Flow.Src, netip.AddrPortFrom(c.Flow.Dst, c.Flow.DstPort))
}

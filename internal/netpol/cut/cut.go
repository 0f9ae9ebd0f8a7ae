// SPDX-License-Identifier: Apache-2.0

// Package cut decides which existing connections must end, because the program of this node denies
// them now or because one of their addresses has another owner. A nat chain sees only the first
// packet of a connection, so conntrack entries keep old verdicts; this package judges the entries
// again.
//
// It is pure: package conntrack reads the entries, package datapath deletes them and has package
// ruleset refuse the packets that would revive them. It reads neither the kernel nor policies. It
// runs next to the data path, after a change of the program was committed.
package cut

import (
	"fmt"
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Reason is why a connection must end.
type Reason uint8

// The reasons.
const (
	// Ingress and Egress: the policies of that direction deny it.
	Ingress Reason = iota + 1
	Egress
	// Reused: one of its addresses belongs to another pod now.
	Reused
	// Gone: the pod that had one of its addresses is gone.
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
	// Addr is the pod's address; for a reused address that address; for traffic to a group the
	// group's.
	Addr netip.Addr
	// Pod is the pod that the reason is about, by its policies or its address; empty for a group,
	// and if the address has no pod any more. Chain is the chain that denies the connection.
	Pod, Chain string
	// Tenant is the namespace of that pod, or of the pod that sends to a group; empty if it is not
	// known.
	Tenant string
	// Flow is the connection as the chains saw its first packet. For an entry with swapped
	// directions it is the reverse of the entry.
	Flow program.Flow
	// Revival is the packet that the replying end sends if it continues. It would begin a new
	// connection in the other direction, which may not be denied. Zero if no such packet can be
	// distinguished from a legitimate one.
	Revival program.Refused
}

// String returns the connection for people.
func (c Cut) String() string {
	return fmt.Sprintf("%s %s > %s", c.Flow.Protocol, c.Flow.Src, netip.AddrPortFrom(c.Flow.Dst, c.Flow.DstPort))
}

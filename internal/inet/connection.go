// SPDX-License-Identifier: Apache-2.0

package inet

import "net/netip"

// Tuple is one direction of a conntrack entry.
type Tuple struct {
	Src, Dst netip.Addr
	// SrcPort and DstPort are 0 for protocols without ports.
	SrcPort, DstPort uint16
	// ICMP holds id, type and code of an echo or a similar query.
	ICMP ICMP
	// Zone is set if the entry has a zone in this direction only.
	Zone uint16
}

// ICMP distinguishes one ICMP query from another.
type ICMP struct {
	ID         uint16
	Type, Code uint8
}

// Connection is a conntrack entry: the addresses of the first packet as it arrived (Orig), and
// those of a reply as it arrives (Reply). Without NAT, one is the other reversed.
type Connection struct {
	Protocol    Protocol
	Orig, Reply Tuple
	Zone        uint16
	// ID is the kernel's identifier of the entry, in its byte order.
	ID [4]byte
	// PickedUp is true for a TCP connection whose handshake the kernel did not see. Its directions
	// may be swapped: Orig is the first packet that was seen, which may have been the server's.
	PickedUp bool
	// Finished is true for a TCP connection that both ends have closed or one has reset: the kernel
	// keeps the entry for a while.
	Finished bool
	// Opening is true for a TCP connection of which the kernel has seen the first packet only.
	Opening bool
	// Balanced is true if the replies come from another end than the first packet was sent to, and NAT is not the
	// cause: IPVS is. NAT does nothing for such an entry, also when IPVS has forgotten it.
	Balanced bool
}

// SPDX-License-Identifier: Apache-2.0

package inet

import "net/netip"

// Tuple is one direction of an entry of the connection table.
type Tuple struct {
	Src, Dst netip.Addr
	// SrcPort and DstPort are 0 for protocols without ports.
	SrcPort, DstPort uint16
	// ICMP holds id, type and code of an echo and its like.
	ICMP ICMP
	// Zone is set if the entry has a zone in this direction only.
	Zone uint16
}

// ICMP is what tells one ICMP query from another.
type ICMP struct {
	ID         uint16
	Type, Code uint8
}

// Connection is an entry of the kernel's connection table: what the first packet
// looked like when it came (Orig), and what an answer to it looks like when it
// comes (Reply). Where nothing is translated, one is the other turned round.
type Connection struct {
	Protocol    Protocol
	Orig, Reply Tuple
	Zone        uint16
	// ID is the kernel's name of the entry, in its byte order.
	ID [4]byte
	// PickedUp is true of a TCP connection whose beginning the kernel did not see.
	// It may stand here the wrong way round: Orig is the first packet that was
	// seen, and that may have been the server's.
	PickedUp bool
	// Finished is true of a TCP connection that both ends have closed, or one has reset:
	// the kernel remembers it for a while.
	Finished bool
}

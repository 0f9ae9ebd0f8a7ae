// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Refused is a packet that is dropped before the chains: the next packet of the replying end of a
// connection that was cut. Otherwise it would begin a connection in the other direction, which may
// not be denied.
type Refused struct {
	Protocol         inet.Protocol // TCP, UDP or SCTP
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

// IsZero reports whether it is the zero value.
func (r Refused) IsZero() bool { return r == Refused{} }

// Flow returns the connection of the packet, as the chains saw its first packet.
func (r Refused) Flow() Flow {
	return Flow{Protocol: r.Protocol, Src: r.Dst, Dst: r.Src, DstPort: r.SrcPort}
}

// String returns the packet for people.
func (r Refused) String() string {
	return fmt.Sprintf("%s %s > %s", r.Protocol, netip.AddrPortFrom(r.Src, r.SrcPort),
		netip.AddrPortFrom(r.Dst, r.DstPort))
}

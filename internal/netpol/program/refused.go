// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Refused is a packet that is dropped before the chains are asked: what the
// answering end of a connection that was cut would send. Reviving it would begin a
// connection in the other direction, which nobody may have denied.
type Refused struct {
	Protocol         inet.Protocol // TCP, UDP or SCTP
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

// IsZero reports whether there is none.
func (r Refused) IsZero() bool { return r == Refused{} }

// Flow returns the connection that the packet belonged to, as its first packet
// met the chains.
func (r Refused) Flow() Flow {
	return Flow{Protocol: r.Protocol, Src: r.Dst, Dst: r.Src, DstPort: r.SrcPort}
}

// String returns the packet for people.
func (r Refused) String() string {
	return fmt.Sprintf("%s %s > %s", r.Protocol, netip.AddrPortFrom(r.Src, r.SrcPort), netip.AddrPortFrom(r.Dst, r.DstPort))
}

// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Statement is one match or action of a rule. text returns it in nft syntax, and its expressions are the
// kernel's form. Both are written side by side in encode.go and text.go, and a test compares them using the
// nft program.
type Statement interface {
	text() string
	encode(e *encoder)
}

// Field is the part of a packet that a lookup or compare uses.
type Field uint8

// The fields.
const (
	Source Field = iota + 1
	Destination
	SourceDestination
	DestinationPort // destination address . port, of one protocol
	TransportPort   // destination port of one protocol
	ProtocolAndPort
	InputInterface
	OutputInterface
	InputSource      // input interface . source address
	OutputSource     // output interface . source address
	CtOriginalSource // source of the connection before any translation . source address
	CtReplySource    // replying end of the connection after any translation . source address
	HardwareSource
	InputHardware          // input interface . hardware source
	InputHardwareSource    // input interface . hardware source . source address
	InputHardwareARP       // the same from an ARP packet: hardware and protocol address of the sender
	InputHardwareNeighbour // the same from a neighbour advertisement: of the target
	InputHardwareARPTarget // input interface . hardware address of the sender . protocol address requested by ARP
	ARPSource              // protocol address of the sender of an ARP packet
	ARPTarget              // protocol address requested by an ARP packet
	Neighbour              // target of a neighbour advertisement
	Front                  // destination address . protocol . destination port
)

// Lookup matches a named set, or takes the verdict from a named map.
type Lookup struct {
	Field    Field
	Family   inet.Family   // for fields with addresses
	Protocol inet.Protocol // for DestinationPort and TransportPort
	Set      string
	Negate   bool
	Map      bool
	Choice   Choice // for Front and ProtocolAndPort
}

// MatchProtocol compares the transport protocol.
type MatchProtocol struct {
	Protocol inet.Protocol
	Negate   bool
}

// MatchPort compares the destination port of a protocol.
type MatchPort struct {
	Protocol inet.Protocol
	Ports    inet.PortRange
}

// MatchPrefix compares the source or destination address.
type MatchPrefix struct {
	Field  Field // Source or Destination
	Prefix netip.Prefix
	Negate bool
}

// MatchCtReplySource compares the address of the connection's replying end.
type MatchCtReplySource struct{ Prefix netip.Prefix }

// MatchFamily compares the family of the packet.
type MatchFamily struct{ Family inet.Family }

// MatchLocalSource matches packets whose source address is one of the node's own.
type MatchLocalSource struct{ Negate bool }

// MatchLocalDestination matches packets whose destination address is one of the node's own.
type MatchLocalDestination struct{}

// MatchBroadcast matches packets whose destination is a broadcast address of one of the node's networks.
type MatchBroadcast struct{}

// CtState is a set of conntrack states, in the kernel's bits.
type CtState uint32

// The conntrack states.
const (
	CtInvalid     CtState = 1 << 0
	CtEstablished CtState = 1 << 1
	CtRelated     CtState = 1 << 2
	CtNew         CtState = 1 << 3
	CtUntracked   CtState = 1 << 6
)

// MatchState matches packets in one of a set of conntrack states.
type MatchState struct{ States CtState }

// MatchNoInput matches packets without an input interface: at postrouting these are packets that a bridge
// forwards itself and packets that the node sends.
type MatchNoInput struct{ Negate bool }

// MatchNoOutput matches packets without an output interface: at input and prerouting these are all packets.
type MatchNoOutput struct{ Negate bool }

// MatchToHost matches packets whose frame was addressed to a single receiver, not to a group or to all
// hosts. On a bridge the IP hooks treat frames to other hosts as such, too.
type MatchToHost struct{}

// MatchLooped matches the copy of a multicast packet that the node sent itself. No packet from a wire is
// one.
type MatchLooped struct{}

// MatchICMP matches a range of ICMPv6 types.
type MatchICMP struct{ First, Last uint8 }

// MatchHopLimit compares the hop limit of an IPv6 packet. 255 proves that no router has forwarded it (RFC
// 4861, 6.1), since each router subtracts one.
type MatchHopLimit struct{ Hops uint8 }

// MatchICMPAny matches every ICMP packet of the family.
type MatchICMPAny struct{ Family inet.Family }

// Count increments a named counter.
type Count struct{ Counter string }

// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Statement is one condition or action of a rule. Its text is nft's own
// syntax, its expressions are what the kernel runs; both are written side by
// side in encode.go and text.go, and a test holds them against each other
// with the nft program.
type Statement interface {
	text() string
	encode(e *encoder)
}

// Field is what a lookup or compare takes from the packet.
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
	InputSource  // input interface . source address
	OutputSource // output interface . source address
	BeganSource  // who began the connection, before any translation . source address
	AnswerSource // who answers in it, after any translation . source address
	HardwareSource
	InputHardware          // input interface . hardware source
	InputHardwareSource    // input interface . hardware source . source address
	InputHardwareARP       // the same as an ARP packet says it: hardware and protocol address of the sender
	InputHardwareNeighbour // the same as a neighbour advertisement says it: of the target
	InputHardwareARPTarget // input interface . hardware address of the sender . protocol address that ARP asks for
	ARPSource              // protocol address of the sender of an ARP packet
	ARPTarget              // protocol address that it asks for
	Neighbour              // target of a neighbour advertisement
)

// Lookup asks a named set, or takes the verdict from a named map.
type Lookup struct {
	Field    Field
	Family   inet.Family   // for fields with addresses
	Protocol inet.Protocol // for DestinationPort and TransportPort
	Set      string
	Negate   bool
	Map      bool
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

// MatchAnswerer compares the address of who answers in the connection.
type MatchAnswerer struct{ Prefix netip.Prefix }

// MatchFamily compares the family of the packet.
type MatchFamily struct{ Family inet.Family }

// MatchLocalSource asks whether the source address is one of the node's own.
type MatchLocalSource struct{ Negate bool }

// MatchLocalDestination asks whether the destination address is one of the node's
// own.
type MatchLocalDestination struct{}

// MatchBroadcast asks whether the destination is a broadcast address of one of
// the node's networks.
type MatchBroadcast struct{}

// CtState is a set of conntrack states, with the kernel's bits.
type CtState uint32

// The conntrack states.
const (
	CtInvalid     CtState = 1 << 0
	CtEstablished CtState = 1 << 1
	CtRelated     CtState = 1 << 2
	CtNew         CtState = 1 << 3
	CtUntracked   CtState = 1 << 6
)

// MatchState asks whether the packet's conntrack state is one of a set.
type MatchState struct{ States CtState }

// MatchNoInput matches packets without an input interface: at postrouting
// those that a bridge forwards by itself and those that the node makes.
type MatchNoInput struct{ Negate bool }

// MatchNoOutput matches packets without an output interface: at input and before
// routing all of them.
type MatchNoOutput struct{ Negate bool }

// MatchToHost matches packets whose frame was for one receiver, not for a group or
// for everybody. On a bridge the IP hooks take frames for others for such, too.
type MatchToHost struct{}

// MatchLooped matches the copy that the node gets of what it sent to a group. No
// packet from a wire is one.
type MatchLooped struct{}

// MatchICMP matches a range of ICMPv6 types.
type MatchICMP struct{ First, Last uint8 }

// MatchHopLimit compares the hop limit of an IPv6 packet. 255 says that no router
// has carried it (RFC 4861, 6.1): a router takes one off.
type MatchHopLimit struct{ Hops uint8 }

// MatchICMPAny matches every ICMP packet of the family.
type MatchICMPAny struct{ Family inet.Family }

// Count adds to a named counter.
type Count struct{ Counter string }

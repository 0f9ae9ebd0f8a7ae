// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// Matches on frames, in tables of family bridge. The kernel has removed a first VLAN tag there, as a
// receiver would.

// EtherType is the payload type of a frame.
type EtherType uint16

// The types that the rulesets name.
const (
	EtherIP   EtherType = unix.ETH_P_IP
	EtherIPv6 EtherType = unix.ETH_P_IPV6
	EtherARP  EtherType = unix.ETH_P_ARP
)

// MatchEtherType matches frames by their payload type. Later statements of the rule need not compare the
// family.
type MatchEtherType struct{ Type EtherType }

func (s MatchEtherType) encode(e *encoder) {
	e.add(&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register})
	e.cmp(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, uint16(s.Type)))
	switch s.Type {
	case EtherIP:
		e.family = inet.IPv4
	case EtherIPv6:
		e.family = inet.IPv6
	}
}

func (s MatchEtherType) text() string {
	switch s.Type {
	case EtherIP:
		return "meta protocol ip"
	case EtherIPv6:
		return "meta protocol ip6"
	case EtherARP:
		return "meta protocol arp"
	}
	return fmt.Sprintf("meta protocol %#04x", uint16(s.Type))
}

// Offsets in bytes from the beginning of the header.
const (
	etherSource = 6  // of a frame: the hardware address that sent it
	arpHardware = 8  // of ARP for Ethernet and IPv4: the sender's hardware address
	arpProtocol = 14 // the sender's IPv4 address
	arpTarget   = 24 // the requested IPv4 address
	ndTarget    = 8  // of a neighbour advertisement (RFC 4861, 4.4)
	hardwareLen = 6
)

// frame loads a field of a frame. In a concatenation an interface name takes 16 bytes of registers, and a
// hardware address 8.
func (e *encoder) frame(f Field, family inet.Family) {
	const afterName, afterHardware = unix.NFT_REG_2, unix.NFT_REG32_06
	load := func(base expr.PayloadBase, offset, length, to uint32) {
		e.add(&expr.Payload{DestRegister: to, Base: base, Offset: offset, Len: length})
	}
	switch f {
	case InputHardware, InputHardwareSource, InputHardwareARP, InputHardwareARPTarget, InputHardwareNeighbour:
		e.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register})
	}
	switch f {
	case HardwareSource:
		load(expr.PayloadBaseLLHeader, etherSource, hardwareLen, register)
	case InputHardware:
		load(expr.PayloadBaseLLHeader, etherSource, hardwareLen, afterName)
	case InputHardwareSource:
		load(expr.PayloadBaseLLHeader, etherSource, hardwareLen, afterName)
		e.address(Source, family, afterHardware)
	case InputHardwareARP:
		load(expr.PayloadBaseNetworkHeader, arpHardware, hardwareLen, afterName)
		load(expr.PayloadBaseNetworkHeader, arpProtocol, 4, afterHardware)
	case InputHardwareARPTarget:
		load(expr.PayloadBaseNetworkHeader, arpHardware, hardwareLen, afterName)
		load(expr.PayloadBaseNetworkHeader, arpTarget, 4, afterHardware)
	case InputHardwareNeighbour:
		load(expr.PayloadBaseLLHeader, etherSource, hardwareLen, afterName)
		load(expr.PayloadBaseTransportHeader, ndTarget, 16, afterHardware)
	case ARPSource:
		load(expr.PayloadBaseNetworkHeader, arpProtocol, 4, register)
	case ARPTarget:
		load(expr.PayloadBaseNetworkHeader, arpTarget, 4, register)
	case Neighbour:
		load(expr.PayloadBaseTransportHeader, ndTarget, 16, register)
	}
}

func (f Field) frameText(ip string) string {
	const target = "icmpv6 taddr" // nft knows the name since 1.0.8
	return map[Field]string{
		HardwareSource:         "ether saddr",
		InputHardware:          "iifname . ether saddr",
		InputHardwareSource:    "iifname . ether saddr . " + ip + " saddr",
		InputHardwareARP:       "iifname . arp saddr ether . arp saddr ip",
		InputHardwareNeighbour: "iifname . ether saddr . " + target,
		InputHardwareARPTarget: "iifname . arp saddr ether . arp daddr ip",
		ARPSource:              "arp saddr ip",
		ARPTarget:              "arp daddr ip",
		Neighbour:              target,
	}[f]
}

// MatchARPSource compares the protocol address of the sender of an ARP packet.
type MatchARPSource struct{ Addr [4]byte }

func (s MatchARPSource) encode(e *encoder) {
	e.frame(ARPSource, inet.IPv4)
	e.cmp(expr.CmpOpEq, s.Addr[:])
}

func (s MatchARPSource) text() string {
	return fmt.Sprintf("arp saddr ip %d.%d.%d.%d", s.Addr[0], s.Addr[1], s.Addr[2], s.Addr[3])
}

// MatchNeighbourLinkLocal compares the target of a neighbour advertisement or
// solicitation with fe80::/10.
type MatchNeighbourLinkLocal struct{ Negate bool }

func (s MatchNeighbourLinkLocal) encode(e *encoder) {
	e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: ndTarget, Len: 2},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 2, Mask: []byte{0xff, 0xc0},
			Xor: []byte{0, 0}})
	e.cmp(equal(s.Negate), []byte{0xfe, 0x80})
}

func (s MatchNeighbourLinkLocal) text() string {
	if s.Negate {
		return fmt.Sprintf("@th,%d,10 != 0x3fa", ndTarget*8)
	}
	return fmt.Sprintf("@th,%d,10 0x3fa", ndTarget*8)
}

// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// Statements of nat chains, in tables of family ip and ip6.

// Choice is a number that a rule chooses at random and appends to the key of a lookup: each of First to
// First+Count-1 is as likely. The zero value appends nothing.
type Choice struct{ First, Count uint16 }

// TranslateByMap replaces the destination by the address and port that a map has for the key; without an
// element of the key the rule does not match.
type TranslateByMap struct {
	Field  Field
	Family inet.Family
	// Protocol is compared first. It must be set if the protocol is not in the key: without it nft refuses
	// to load a translation of ports.
	Protocol inet.Protocol
	Choice   Choice
	Map      string
}

// Translate replaces the destination of packets of a protocol.
type Translate struct {
	Protocol inet.Protocol
	To       netip.AddrPort
}

// RememberSource adds the source address to a map whose elements expire, with an address and port. If the
// map has the source already, its value stays, and only its time begins again. If the map is full, the rule
// does not match.
//
// nft 1.0.6 lists the rule and loads it for IPv4. For IPv6 it cannot load it: it reserves 16 bytes for a
// value, and aborts.
type RememberSource struct {
	Map     string
	Timeout time.Duration // whole seconds
	To      netip.AddrPort
}

// SetMark sets bits of the packet's mark.
type SetMark struct{ Bits uint32 }

// ClearMark clears bits of the packet's mark.
type ClearMark struct{ Bits uint32 }

// MatchMark matches packets with all of the bits in their mark.
type MatchMark struct{ Bits uint32 }

// MatchTranslated matches packets of connections whose destination was translated.
type MatchTranslated struct{ Negate bool }

// Masquerade replaces the source by an address of the output interface, with a random port.
type Masquerade struct{}

// Reject answers TCP with a reset if Reset is set, which needs a match of the protocol before it, and else
// with the ICMP message that the port is unreachable.
type Reject struct {
	Family inet.Family
	Reset  bool
}

// ctTranslated is IPS_DST_NAT.
const ctTranslated = 1 << 5

// words is the number of registers of four bytes that an address takes.
func words(f inet.Family) uint32 {
	if f == inet.IPv6 {
		return 4
	}
	return 1
}

// front loads destination address, protocol and destination port, or without an address only these, and the
// chosen number.
func (e *encoder) front(field Field, f inet.Family, c Choice) {
	next := uint32(0)
	if field == Front {
		e.address(Destination, f, register)
		next = words(f)
	}
	e.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: word(next)})
	e.port(word(next + 1))
	e.choose(c, word(next+2))
}

func (e *encoder) choose(c Choice, to uint32) {
	if c.Count > 0 {
		e.add(&expr.Numgen{Register: to, Type: unix.NFT_NG_RANDOM, Modulus: uint32(c.Count), Offset: uint32(c.First)})
	}
}

func (c Choice) text() string {
	switch {
	case c.Count == 0:
		return ""
	case c.First == 0:
		return fmt.Sprintf(" . numgen random mod %d", c.Count)
	}
	return fmt.Sprintf(" . numgen random mod %d offset %d", c.Count, c.First)
}

func (s TranslateByMap) encode(e *encoder) {
	e.needFamily(s.Family)
	if s.Protocol != inet.AnyProtocol {
		e.needProtocol(s.Protocol)
	}
	if s.Field == Source {
		e.address(Source, s.Family, register)
	} else {
		e.front(s.Field, s.Family, s.Choice)
	}
	e.add(&expr.Lookup{SourceRegister: register, SetName: s.Map, IsDestRegSet: true, DestRegister: register})
	e.translate(s.Family, word(words(s.Family)))
}

// translate sends to the address in the first register, and the port in another one. The kernel reports the
// ends of both ranges, and that a port is given; so both are written.
func (e *encoder) translate(f inet.Family, port uint32) {
	e.add(&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nfproto(f)), RegAddrMin: register, RegAddrMax: register,
		RegProtoMin: port, RegProtoMax: port, Specified: true})
}

func (s TranslateByMap) text() string {
	ip := FamilyFor(s.Family).String()
	match := ""
	if s.Protocol != inet.AnyProtocol {
		match = MatchProtocol{Protocol: s.Protocol}.text() + " "
	}
	key := s.Field.text(s.Family, inet.AnyProtocol) + s.Choice.text()
	return fmt.Sprintf("%sdnat %s to %s map @%s", match, ip, key, s.Map)
}

func (s Translate) encode(e *encoder) {
	f := inet.FamilyOf(s.To.Addr())
	e.needFamily(f)
	e.needProtocol(s.Protocol)
	e.add(&expr.Immediate{Register: register, Data: s.To.Addr().AsSlice()},
		&expr.Immediate{Register: unix.NFT_REG_2, Data: binaryutil.BigEndian.PutUint16(s.To.Port())})
	e.translate(f, unix.NFT_REG_2)
}

func (s Translate) text() string {
	return fmt.Sprintf("%s dnat to %s", MatchProtocol{Protocol: s.Protocol}.text(), s.To)
}

func (s RememberSource) encode(e *encoder) {
	f := inet.FamilyOf(s.To.Addr())
	e.needFamily(f)
	n := e.address(Source, f, register)
	// The value begins where nft puts it: at the next register of 16 bytes.
	value := uint32(4)
	e.add(&expr.Immediate{Register: word(value), Data: s.To.Addr().AsSlice()},
		&expr.Immediate{Register: word(value + n/4), Data: binaryutil.BigEndian.PutUint16(s.To.Port())},
		&expr.Dynset{SrcRegKey: register, SrcRegData: word(value), SetName: s.Map,
			Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: s.Timeout})
}

func (s RememberSource) text() string {
	return fmt.Sprintf("update @%s { %s timeout %ds : %s . %d }", s.Map,
		Source.text(inet.FamilyOf(s.To.Addr()), inet.AnyProtocol), int(s.Timeout.Seconds()), s.To.Addr(), s.To.Port())
}

func (s SetMark) encode(e *encoder) { e.mark(^s.Bits, s.Bits) }

func (s SetMark) text() string { return fmt.Sprintf("meta mark set meta mark | %#08x", s.Bits) }

func (s ClearMark) encode(e *encoder) { e.mark(^s.Bits, 0) }

func (s ClearMark) text() string { return fmt.Sprintf("meta mark set meta mark & %#08x", ^s.Bits) }

// mark sets the mark to what a mask leaves of it, with other bits turned.
func (e *encoder) mark(mask, turn uint32) {
	e.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: binaryutil.NativeEndian.PutUint32(turn)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register})
}

func (s MatchMark) encode(e *encoder) {
	bits := binaryutil.NativeEndian.PutUint32(s.Bits)
	e.add(&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: bits, Xor: make([]byte, 4)})
	e.cmp(expr.CmpOpEq, bits)
}

func (s MatchMark) text() string { return fmt.Sprintf("meta mark & %#08x == %#08x", s.Bits, s.Bits) }

func (s MatchTranslated) encode(e *encoder) {
	e.add(&expr.Ct{Key: expr.CtKeySTATUS, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(ctTranslated), Xor: make([]byte, 4)})
	e.cmp(equal(!s.Negate), make([]byte, 4))
}

func (s MatchTranslated) text() string {
	if s.Negate {
		return "ct status ! dnat"
	}
	return "ct status dnat"
}

func (Masquerade) encode(e *encoder) { e.add(&expr.Masq{FullyRandom: true}) }

func (Masquerade) text() string { return "masquerade fully-random" }

func (s Reject) encode(e *encoder) {
	const portUnreachable, portUnreachable6 = 3, 4 // of ICMP and of ICMPv6
	switch {
	case s.Reset:
		e.add(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST})
	case s.Family == inet.IPv6:
		e.add(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable6})
	default:
		e.add(&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: portUnreachable})
	}
}

func (s Reject) text() string {
	if s.Reset {
		return "reject with tcp reset"
	}
	return "reject"
}

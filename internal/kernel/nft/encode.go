// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// encoder collects the kernel expressions of one rule. All values use the first registers; second is the
// start of the second part of a concatenation.
type encoder struct {
	exprs  []expr.Any
	family inet.Family // already compared in this rule
	proto  inet.Protocol
}

const (
	register          = unix.NFT_REG_1
	protoICMP         = 1
	protoICMPv6       = 58
	addrTypeLocal     = 2 // RTN_LOCAL
	addrTypeBroadcast = 3 // RTN_BROADCAST
	packetToHost      = 0 // PACKET_HOST
	packetLooped      = 5 // PACKET_LOOPBACK
)

// second returns the register after a first part of n bytes; the kernel numbers registers in units of 16
// bytes where possible.
func second(n uint32) uint32 {
	if n == 16 {
		return unix.NFT_REG_2
	}
	return unix.NFT_REG32_01
}

func encodeRule(r Rule) []expr.Any {
	e := &encoder{family: r.Family}
	for _, s := range r.Statements {
		s.encode(e)
	}
	return e.exprs
}

// fingerprint identifies what the kernel does for a rule, both for rules to write and for rules read.
func (r Rule) fingerprint() string {
	if r.raw != "" {
		return r.raw
	}
	return fingerprint(encodeRule(r), r.Comment)
}

func fingerprint(list []expr.Any, comment string) string {
	var b strings.Builder
	for _, e := range list {
		switch e := e.(type) { // the number of a set is known only inside the transaction that adds it
		case *expr.Lookup:
			e.SetID = 0
		case *expr.Dynset:
			e.SetID = 0
		}
		data, err := expr.Marshal(unix.NFPROTO_INET, e)
		fmt.Fprintf(&b, "%x%v;", data, err)
	}
	return b.String() + Clip(comment)
}

func (e *encoder) add(list ...expr.Any) { e.exprs = append(e.exprs, list...) }

func (e *encoder) cmp(op expr.CmpOp, data []byte) {
	e.add(&expr.Cmp{Op: op, Register: register, Data: data})
}

func equal(negate bool) expr.CmpOp {
	if negate {
		return expr.CmpOpNeq
	}
	return expr.CmpOpEq
}

// needFamily compares the family once per rule: in an inet table the address fields of both families are at
// the same offsets.
func (e *encoder) needFamily(f inet.Family) {
	if e.family == f {
		return
	}
	e.family = f
	e.add(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register})
	e.cmp(expr.CmpOpEq, []byte{nfproto(f)})
}

func nfproto(f inet.Family) byte {
	if f == inet.IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func (e *encoder) needProtocol(p inet.Protocol) {
	if e.proto == p {
		return
	}
	e.proto = p
	e.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
	e.cmp(expr.CmpOpEq, []byte{byte(p)})
}

// address loads the source or destination address and returns its length.
func (e *encoder) address(f Field, family inet.Family, to uint32) uint32 {
	load := addressOf(f, family, to)
	e.add(load)
	return load.Len
}

// addressOf returns what loads an address.
func addressOf(f Field, family inet.Family, to uint32) *expr.Payload {
	offset, length := uint32(12), uint32(4)
	if family == inet.IPv6 {
		offset, length = 8, 16
	}
	if f == Destination {
		offset += length
	}
	return &expr.Payload{DestRegister: to, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

// ctSource loads the connection's source in one direction, and returns its length.
func (e *encoder) ctSource(family inet.Family, reply bool) uint32 {
	ct, length := &expr.Ct{Key: expr.CtKeySRCIP, Register: register, Direction: expr.CtDirOriginal}, uint32(4)
	if family == inet.IPv6 {
		ct.Key, length = expr.CtKeySRCIP6, 16
	}
	if reply {
		ct.Direction = expr.CtDirReply
	}
	e.add(ct)
	return length
}

func (e *encoder) port(to uint32) {
	e.add(&expr.Payload{DestRegister: to, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
}

func (s Lookup) encode(e *encoder) {
	switch s.Field {
	case Source, Destination:
		e.needFamily(s.Family)
		e.address(s.Field, s.Family, register)
	case SourceDestination:
		e.needFamily(s.Family)
		n := e.address(Source, s.Family, register)
		e.address(Destination, s.Family, second(n))
	case DestinationPort:
		e.needFamily(s.Family)
		e.needProtocol(s.Protocol)
		n := e.address(Destination, s.Family, register)
		e.port(second(n))
	case TransportPort:
		e.needProtocol(s.Protocol)
		e.port(register)
	case Front, ProtocolAndPort:
		if s.Field == Front {
			e.needFamily(s.Family)
		}
		e.front(s.Field, s.Family, s.Choice)
	case InputInterface:
		e.add(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register})
	case OutputInterface:
		e.add(&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register})
	case InputSource, OutputSource:
		key := expr.MetaKeyIIFNAME
		if s.Field == OutputSource {
			key = expr.MetaKeyOIFNAME
		}
		e.needFamily(s.Family)
		e.add(&expr.Meta{Key: key, Register: register})
		e.address(Source, s.Family, second(16))
	case CtOriginalSource, CtReplySource:
		e.needFamily(s.Family)
		n := e.ctSource(s.Family, s.Field == CtReplySource)
		e.address(Source, s.Family, second(n))
	case HardwareSource, InputHardware, InputHardwareSource, InputHardwareARP, InputHardwareARPTarget,
		InputHardwareNeighbour, ARPSource, ARPTarget, Neighbour:
		e.frame(s.Field, s.Family)
	}
	l := &expr.Lookup{SourceRegister: register, SetName: s.Set, Invert: s.Negate}
	if s.Map {
		l.IsDestRegSet, l.DestRegister = true, unix.NFT_REG_VERDICT
	}
	e.add(l)
}

func (s MatchProtocol) encode(e *encoder) {
	if !s.Negate {
		e.needProtocol(s.Protocol)
		return
	}
	e.add(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register})
	e.cmp(expr.CmpOpNeq, []byte{byte(s.Protocol)})
}

func (s MatchPort) encode(e *encoder) {
	e.needProtocol(s.Protocol)
	e.port(register)
	first, last := binaryutil.BigEndian.PutUint16(s.Ports.First), binaryutil.BigEndian.PutUint16(s.Ports.Last)
	if s.Ports.First == s.Ports.Last {
		e.cmp(expr.CmpOpEq, first)
		return
	}
	e.cmp(expr.CmpOpGte, first)
	e.cmp(expr.CmpOpLte, last)
}

func (s MatchPrefix) encode(e *encoder) {
	family := inet.FamilyOf(s.Prefix.Addr())
	e.needFamily(family)
	bits := s.Prefix.Bits()
	if bits == 0 && !s.Negate {
		return // every address of the family
	}
	prefix := s.Prefix.Masked().Addr().AsSlice()
	load := addressOf(s.Field, family, register)
	if bits > 0 && bits%8 == 0 { // as nft writes it: the first bytes
		load.Len = uint32(bits / 8)
		e.add(load)
		e.cmp(equal(s.Negate), prefix[:load.Len])
		return
	}
	e.add(load, &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: load.Len,
		Mask: mask(bits, len(prefix)), Xor: make([]byte, load.Len)})
	e.cmp(equal(s.Negate), prefix)
}

func (s MatchCtReplySource) encode(e *encoder) {
	family := inet.FamilyOf(s.Prefix.Addr())
	e.needFamily(family)
	n := e.ctSource(family, true)
	e.add(&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: n,
		Mask: mask(s.Prefix.Bits(), int(n)), Xor: make([]byte, n)})
	e.cmp(expr.CmpOpEq, s.Prefix.Masked().Addr().AsSlice())
}

func mask(bits, n int) []byte {
	m := make([]byte, n)
	for i := range bits {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

func (s MatchFamily) encode(e *encoder) { e.needFamily(s.Family) }

func (s MatchLocalSource) encode(e *encoder) {
	e.add(&expr.Fib{Register: register, FlagSADDR: true, ResultADDRTYPE: true})
	e.cmp(equal(s.Negate), binaryutil.NativeEndian.PutUint32(addrTypeLocal))
}

func (MatchLocalDestination) encode(e *encoder) {
	e.add(&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true})
	e.cmp(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(addrTypeLocal))
}

func (MatchBroadcast) encode(e *encoder) {
	e.add(&expr.Fib{Register: register, FlagDADDR: true, ResultADDRTYPE: true})
	e.cmp(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(addrTypeBroadcast))
}

func (s MatchState) encode(e *encoder) {
	e.add(
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(uint32(s.States)), Xor: make([]byte, 4)},
	)
	e.cmp(expr.CmpOpNeq, make([]byte, 4))
}

func (s MatchNoInput) encode(e *encoder) {
	e.add(&expr.Meta{Key: expr.MetaKeyIIF, Register: register})
	e.cmp(equal(s.Negate), make([]byte, 4))
}

func (s MatchNoOutput) encode(e *encoder) {
	e.add(&expr.Meta{Key: expr.MetaKeyOIF, Register: register})
	e.cmp(equal(s.Negate), make([]byte, 4))
}

func (MatchToHost) encode(e *encoder) {
	e.add(&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: register})
	e.cmp(expr.CmpOpEq, []byte{packetToHost})
}

func (MatchLooped) encode(e *encoder) {
	e.add(&expr.Meta{Key: expr.MetaKeyPKTTYPE, Register: register})
	e.cmp(expr.CmpOpEq, []byte{packetLooped})
}

func (s MatchICMP) encode(e *encoder) {
	e.needProtocol(protoICMPv6)
	e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1})
	if s.First == s.Last {
		e.cmp(expr.CmpOpEq, []byte{s.First})
		return
	}
	e.cmp(expr.CmpOpGte, []byte{s.First})
	e.cmp(expr.CmpOpLte, []byte{s.Last})
}

func (s MatchHopLimit) encode(e *encoder) {
	e.needFamily(inet.IPv6)
	e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: 7, Len: 1})
	e.cmp(expr.CmpOpEq, []byte{s.Hops})
}

func (s MatchICMPAny) encode(e *encoder) {
	if s.Family == inet.IPv6 {
		e.needProtocol(protoICMPv6)
		return
	}
	e.needProtocol(protoICMP)
}

func (s Count) encode(e *encoder) {
	e.add(&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: s.Counter})
}

func (v Verdict) encode(e *encoder) {
	if kind, ok := v.kernel(); ok {
		e.add(&expr.Verdict{Kind: kind, Chain: v.Chain})
	}
}

// kernel returns the kernel's verdict; ok is false for None.
func (v Verdict) kernel() (kind expr.VerdictKind, ok bool) {
	switch v.Kind {
	case Accept:
		return expr.VerdictAccept, true
	case Drop:
		return expr.VerdictDrop, true
	case Return:
		return expr.VerdictReturn, true
	case Jump:
		return expr.VerdictJump, true
	case Goto:
		return expr.VerdictGoto, true
	}
	return 0, false
}

// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// MatchUnderWay matches packets that do not open a connection: TCP packets except plain SYN, SCTP packets
// except INIT.
type MatchUnderWay struct{ Protocol inet.Protocol }

// MatchReset matches TCP packets that refuse or end a connection at once. It needs a match of TCP before it.
type MatchReset struct{}

// FlowIn looks up source, port, destination and port of a packet in a set. With Rearm it restarts the
// element's timeout instead.
type FlowIn struct {
	Family   inet.Family
	Protocol inet.Protocol
	Set      string
	Rearm    bool
}

const (
	tcpFlags     = 13 // offset in the header
	tcpBegin     = 0x02
	tcpReset     = 0x04
	tcpBeginMask = 0x17 // fin, syn, rst, ack
	sctpChunk    = 12   // offset of the first chunk's type
	sctpInit     = 1
)

func (s MatchUnderWay) encode(e *encoder) {
	e.needProtocol(s.Protocol)
	if s.Protocol == inet.SCTP {
		e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: sctpChunk, Len: 1})
		e.cmp(expr.CmpOpNeq, []byte{sctpInit})
		return
	}
	e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{tcpBeginMask},
			Xor: []byte{0}})
	e.cmp(expr.CmpOpNeq, []byte{tcpBegin})
}

func (s MatchUnderWay) text() string {
	if s.Protocol == inet.SCTP {
		return "meta l4proto sctp @th,96,8 != 1"
	}
	return "tcp flags & (fin | syn | rst | ack) != syn"
}

func (MatchReset) encode(e *encoder) {
	e.needProtocol(inet.TCP)
	e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{tcpReset}, Xor: []byte{0}})
	e.cmp(expr.CmpOpNeq, []byte{0})
}

func (MatchReset) text() string { return "tcp flags rst" }

func (s FlowIn) encode(e *encoder) {
	e.needFamily(s.Family)
	e.needProtocol(s.Protocol)
	e.flow(s.Family)
	if s.Rearm {
		e.add(&expr.Dynset{SrcRegKey: register, SetName: s.Set, Operation: unix.NFT_DYNSET_OP_UPDATE})
		return
	}
	e.add(&expr.Lookup{SourceRegister: register, SetName: s.Set})
}

// flow loads addresses and ports into consecutive registers.
func (e *encoder) flow(f inet.Family) {
	words := uint32(1) // of an address; a port has one
	if f == inet.IPv6 {
		words = 4
	}
	e.address(Source, f, register)
	e.add(&expr.Payload{DestRegister: word(words), Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2})
	e.address(Destination, f, word(words+1))
	e.add(&expr.Payload{DestRegister: word(2*words + 1), Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
}

// word returns the register of the four-byte word with that number. If a 16-byte register begins there, the
// kernel uses its number.
func word(n uint32) uint32 {
	if n%4 == 0 {
		return unix.NFT_REG_1 + n/4
	}
	return unix.NFT_REG32_00 + n
}

func (s FlowIn) text() string {
	ip := FamilyFor(s.Family).String()
	key := fmt.Sprintf("%s saddr . %s sport . %s daddr . %s dport", ip, s.Protocol, ip, s.Protocol)
	if s.Rearm {
		return fmt.Sprintf("update @%s { %s }", s.Set, key)
	}
	return key + " @" + s.Set
}

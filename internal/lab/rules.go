// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The registers: a verdict needs none, and translation takes the address from
// one and the port from another.
const (
	first  = 1
	second = 2
)

// ctStatusDNAT is IPS_DST_NAT of the kernel's connection tracking.
const ctStatusDNAT = 1 << 5

func (t *serviceTable) rule(chain *nftables.Chain, match, then []expr.Any) {
	t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: chain, Exprs: append(match, then...)})
}

// nfproto is the value of the family in nftables.
func nfproto(a netip.Addr) byte {
	if a.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: first, Data: data}
}

func matchFamily(a netip.Addr) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: first}, equal([]byte{nfproto(a)})}
}

// matchAddr compares the source or destination address.
func matchAddr(a netip.Addr, source bool) []expr.Any {
	load := &expr.Payload{DestRegister: first, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	switch {
	case a.Is6() && source:
		load.Offset, load.Len = 8, 16
	case a.Is6():
		load.Offset, load.Len = 24, 16
	case source:
		load.Offset = 12
	}
	return []expr.Any{load, equal(a.AsSlice())}
}

func match(s Service) []expr.Any {
	list := append(matchFamily(s.Front.Addr()), matchAddr(s.Front.Addr(), false)...)
	return append(list,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: first}, equal([]byte{byte(s.Proto)}),
		&expr.Payload{DestRegister: first, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equal(binaryutil.BigEndian.PutUint16(s.Front.Port())))
}

// matchItself matches a packet whose both ends are one address.
func matchItself(a netip.Addr) []expr.Any {
	return append(append(matchFamily(a), matchAddr(a, true)...), matchAddr(a, false)...)
}

func matchTranslated() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: first},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(ctStatusDNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: first, Data: make([]byte, 4)},
	}
}

func matchInvalid() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: first},
		&expr.Bitwise{SourceRegister: first, DestRegister: first, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitINVALID), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: first, Data: make([]byte, 4)},
	}
}

// oneOf matches one connection of n, at random.
func oneOf(n int) []expr.Any {
	return []expr.Any{
		&expr.Numgen{Register: first, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		equal(make([]byte, 4)),
	}
}

func dnat(to netip.AddrPort) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: first, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: second, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(nfproto(to.Addr())), RegAddrMin: first,
			RegProtoMin: second, Specified: true},
	}
}

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

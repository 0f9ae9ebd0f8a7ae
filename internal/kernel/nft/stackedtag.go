// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables/expr"
)

// MatchTagBehind matches frames, in a table of family bridge, with a further VLAN tag behind a tag with
// that EtherType and VLAN 0.
type MatchTagBehind struct{ EtherType uint16 }

// The offset of the outer tag, which the kernel has removed and presents here again.
const outerTag = 14

func (s MatchTagBehind) encode(e *encoder) {
	e.add(&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register})
	e.cmp(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, s.EtherType))
	e.add(&expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: outerTag, Len: 2},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 2, Mask: []byte{0x0f, 0xff},
			Xor: []byte{0, 0}})
	e.cmp(expr.CmpOpEq, []byte{0, 0})
}

func (s MatchTagBehind) text() string {
	return fmt.Sprintf("meta protocol %#04x @ll,%d,16 & 0xfff == 0", s.EtherType, outerTag*8)
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A node that runs BGP can have a million routes and a thousand changes a second. They use network cards
// and tunnels, and their destinations are not pods of this node. A socket filter makes the kernel drop
// their notifications, so no process wakes up. The filter is coarse and passes messages in doubt.

const (
	nlHeader      = 16  // length of a message's header
	mostDull      = 200 // so that jumps stay short
	mostPrefixes  = 64  // for each family
	coarse4       = 24  // the prefix length by which addresses are compared
	coarse6       = 64
	passes, drops = 1 << 20, 0
)

// interest decides whether a route change matters.
type interest struct {
	// dull are the interfaces for which a gateway makes no difference: network cards, tunnels, interfaces
	// named as uplinks.
	dull map[int]bool
	// wanted are the pods' addresses.
	wanted map[netip.Addr]bool
	// replaced means that a replaced route matters even if the new one is dull.
	replaced bool
}

// wants reports whether a route to dst may lead to a pod.
func (i *interest) wants(dst netip.Prefix) bool {
	if dst.IsSingleIP() {
		return i.wanted[dst.Addr()]
	}
	for a := range i.wanted {
		if dst.Contains(a) {
			return true
		}
	}
	return false
}

// equal reports whether both result in the same filter.
func (i *interest) equal(o *interest) bool {
	return o != nil && i.replaced == o.replaced && slices.Equal(i.dullest(), o.dullest()) &&
		slices.Equal(i.coarse(true), o.coarse(true)) && slices.Equal(i.coarse(false), o.coarse(false))
}

// dullest are the dull interfaces that fit into the filter, lowest index first: network cards have low
// indexes.
func (i *interest) dullest() []int {
	var list []int
	for index := range i.dull {
		list = append(list, index)
	}
	slices.Sort(list)
	return list[:min(len(list), mostDull)]
}

// coarse are the prefixes that contain the wanted addresses of a family.
func (i *interest) coarse(v6 bool) []netip.Prefix {
	var list []netip.Prefix
	for a := range i.wanted {
		switch {
		case a.Is6() != v6:
		case v6:
			list = append(list, netip.PrefixFrom(a, coarse6).Masked())
		default:
			list = append(list, netip.PrefixFrom(a, coarse4).Masked())
		}
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// filter builds the socket filter. It drops a message only if its route uses a dull interface and overlaps
// no prefix of pods.
func (i *interest) filter() []bpf.Instruction {
	pass := bpf.RetConstant{Val: passes}
	dull := i.dullest()
	f := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2}, // the type of the message
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(unix.RTM_NEWROUTE), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(unix.RTM_DELROUTE), SkipTrue: 1},
		pass,
	}
	if i.replaced {
		f = append(f, bpf.LoadAbsolute{Off: 6, Size: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: native16(unix.NLM_F_REPLACE), SkipFalse: 1}, pass)
	}
	f = append(f, attribute(unix.RTA_OIF)...)
	f = append(f, bpf.LoadIndirect{Off: unix.SizeofRtAttr, Size: 4})
	for n, index := range dull {
		f = append(f, bpf.JumpIf{Cond: bpf.JumpEqual, Val: native32(uint32(index)), SkipTrue: uint8(len(dull) - n)})
	}
	f = append(f, pass,
		bpf.LoadAbsolute{Off: nlHeader + 1, Size: 1}, // the length of the destination
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1}, pass,
		bpf.StoreScratch{Src: bpf.RegA, N: slotBits})
	f = append(f, attribute(unix.RTA_DST)...)
	v4, v6 := overlaps4(i.coarse(false)), overlaps6(i.coarse(true))
	f = append(f, bpf.LoadAbsolute{Off: nlHeader, Size: 1}, // the family
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(v4))})
	f = append(f, v4...)
	f = append(f, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET6, SkipTrue: 1}, pass)
	return append(f, v6...)
}

// The filter's memory slots.
const (
	slotBits = iota // how many bits of the destination count
	slotHigh        // the first word of the destination
	slotLow         // the second, of IPv6
	slotShiftHigh
	slotShiftLow
)

// attribute finds an attribute and leaves its offset in X. It passes the message if the attribute is
// missing.
func attribute(kind uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadConstant{Dst: bpf.RegA, Val: nlHeader + attrsAt},
		bpf.LoadConstant{Dst: bpf.RegX, Val: kind},
		bpf.LoadExtension{Num: bpf.ExtNetlinkAttr},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 1},
		bpf.RetConstant{Val: passes},
		bpf.TAX{},
	}
}

// overlaps4 passes a destination, whose attribute is at X, that overlaps one of the prefixes, and drops
// others.
func overlaps4(list []netip.Prefix) []bpf.Instruction {
	if len(list) > mostPrefixes {
		return []bpf.Instruction{bpf.RetConstant{Val: passes}}
	}
	f := []bpf.Instruction{bpf.LoadIndirect{Off: unix.SizeofRtAttr, Size: 4}, bpf.StoreScratch{Src: bpf.RegA,
		N: slotHigh}}
	f = append(f, shift(slotShiftHigh, 32, coarse4)...)
	for _, p := range list {
		a := p.Addr().As4()
		f = append(f, differs(slotHigh, slotShiftHigh, binary.BigEndian.Uint32(a[:]), 1)...)
		f = append(f, bpf.RetConstant{Val: passes})
	}
	return append(f, bpf.RetConstant{Val: drops})
}

// overlaps6 does the same for IPv6, comparing two words.
func overlaps6(list []netip.Prefix) []bpf.Instruction {
	if len(list) > mostPrefixes {
		return []bpf.Instruction{bpf.RetConstant{Val: passes}}
	}
	f := []bpf.Instruction{
		bpf.LoadIndirect{Off: unix.SizeofRtAttr, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: slotHigh},
		bpf.LoadIndirect{Off: unix.SizeofRtAttr + 4, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: slotLow}}
	f = append(f, shift(slotShiftHigh, 32, 32)...)
	f = append(f, shift(slotShiftLow, 64, coarse6)...) // used for more than 32 bits only
	for _, p := range list {
		a := p.Addr().As16()
		low := differs(slotLow, slotShiftLow, binary.BigEndian.Uint32(a[4:]), 1)
		short := []bpf.Instruction{bpf.LoadScratch{Dst: bpf.RegA, N: slotBits},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 32, SkipTrue: 1}, bpf.RetConstant{Val: passes}}
		f = append(f, differs(slotHigh, slotShiftHigh, binary.BigEndian.Uint32(a[:]), len(short)+len(low)+1)...)
		f = append(f, short...)
		f = append(f, low...)
		f = append(f, bpf.RetConstant{Val: passes})
	}
	return append(f, bpf.RetConstant{Val: drops})
}

// shift stores in a slot how many low bits of a word to ignore. The word ends at bit end of the address,
// and at most most bits of the destination count.
func shift(slot int, end, most uint32) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadScratch{Dst: bpf.RegA, N: slotBits},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: most, SkipFalse: 1},
		bpf.LoadConstant{Dst: bpf.RegA, Val: most},
		bpf.NegateA{},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: end},
		bpf.StoreScratch{Src: bpf.RegA, N: slot},
	}
}

// differs compares a word with a value, and skips the next instructions if they differ.
func differs(word, shift int, value uint32, skip int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadScratch{Dst: bpf.RegX, N: shift},
		bpf.LoadScratch{Dst: bpf.RegA, N: word},
		bpf.ALUOpConstant{Op: bpf.ALUOpXor, Val: value},
		bpf.ALUOpX{Op: bpf.ALUOpShiftRight},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: uint8(skip)},
	}
}

// native16 converts a number of the kernel to the filter's byte order, most significant byte first.
func native16(v uint16) uint32 {
	if nativeIsLittle() {
		v = bits.ReverseBytes16(v)
	}
	return uint32(v)
}

func native32(v uint32) uint32 {
	if nativeIsLittle() {
		return bits.ReverseBytes32(v)
	}
	return v
}

func nativeIsLittle() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

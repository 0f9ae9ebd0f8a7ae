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

// A node that speaks BGP can have a million routes and a thousand changes a
// second. They go over network cards and tunnels, and to where no pod of this
// node is. A socket filter has the kernel keep them to itself: nobody is woken.
// It is coarse, and lets through what it is not sure of.

const (
	nlHeader      = 16  // before the payload of a message
	mostDull      = 200 // so that jumps stay short
	mostPrefixes  = 64  // for each family
	coarse4       = 24  // the length of the prefixes that addresses are looked up by
	coarse6       = 64
	passes, drops = 1 << 20, 0
)

// interest is what decides whether a change of a route matters.
type interest struct {
	// dull are the interfaces of which it does not matter whether a gateway is
	// behind them: network cards, tunnels, those that are named as uplinks.
	dull map[int]bool
	// wanted are the pods' addresses.
	wanted map[netip.Addr]bool
	// replaced says that a replaced route matters even if the new one is dull.
	replaced bool
}

// wants reports whether a route to there can be that to a pod.
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

// equal reports whether both lead to the same filter.
func (i *interest) equal(o *interest) bool {
	return o != nil && i.replaced == o.replaced && slices.Equal(i.dullest(), o.dullest()) &&
		slices.Equal(i.coarse(true), o.coarse(true)) && slices.Equal(i.coarse(false), o.coarse(false))
}

// dullest are as many dull interfaces as the filter can name, the oldest first:
// network cards are.
func (i *interest) dullest() []int {
	var list []int
	for index := range i.dull {
		list = append(list, index)
	}
	slices.Sort(list)
	return list[:min(len(list), mostDull)]
}

// coarse are the prefixes that the wanted addresses of a family are in.
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

// filter writes the socket filter. It drops a message only if it is about a route
// over a dull interface that overlaps no prefix of pods.
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

// The filter's memory.
const (
	slotBits = iota // how many bits of the destination count
	slotHigh        // the first word of the destination
	slotLow         // the second, of IPv6
	slotShiftHigh
	slotShiftLow
)

// attribute finds an attribute, passes the message if it has none, and leaves the
// offset in X.
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

// overlaps4 passes a destination, whose attribute is at X, that overlaps one of the
// prefixes, and drops others.
func overlaps4(list []netip.Prefix) []bpf.Instruction {
	if len(list) > mostPrefixes {
		return []bpf.Instruction{bpf.RetConstant{Val: passes}}
	}
	f := []bpf.Instruction{bpf.LoadIndirect{Off: unix.SizeofRtAttr, Size: 4}, bpf.StoreScratch{Src: bpf.RegA, N: slotHigh}}
	f = append(f, shift(slotShiftHigh, 32, coarse4)...)
	for _, p := range list {
		a := p.Addr().As4()
		f = append(f, differs(slotHigh, slotShiftHigh, binary.BigEndian.Uint32(a[:]), 1)...)
		f = append(f, bpf.RetConstant{Val: passes})
	}
	return append(f, bpf.RetConstant{Val: drops})
}

// overlaps6 is the same for IPv6, of which two words count.
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

// shift writes into a slot how many bits of a word do not count: the word ends at
// bit end, and of the destination's bits no more than most count.
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

// differs compares a word with a value, and skips what follows if they differ.
func differs(word, shift int, value uint32, skip int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadScratch{Dst: bpf.RegX, N: shift},
		bpf.LoadScratch{Dst: bpf.RegA, N: word},
		bpf.ALUOpConstant{Op: bpf.ALUOpXor, Val: value},
		bpf.ALUOpX{Op: bpf.ALUOpShiftRight},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: uint8(skip)},
	}
}

// native16 is a number of the kernel as the filter reads it: most significant
// byte first.
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

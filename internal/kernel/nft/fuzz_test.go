// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// FuzzKey checks that a parsed key matches the kernel's: its bytes are the same again. A key that we could
// not write must not be treated as ours.
func FuzzKey(f *testing.F) {
	f.Add(byte(Addr4), []byte{10, 0, 0, 1})
	f.Add(byte(Addr6), bytes.Repeat([]byte{0xfd}, 16))
	f.Add(byte(Pair4), []byte{10, 0, 0, 1, 10, 0, 0, 1})
	f.Add(byte(Pair4), []byte{10, 0, 0, 1, 10, 0, 0, 2})
	f.Add(byte(Addr4Port), []byte{10, 0, 0, 1, 0, 80, 0, 0})
	f.Add(byte(ProtocolPort), []byte{6, 0, 0, 0, 0, 80, 0, 0})
	f.Add(byte(Slot4), []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 1, 2, 0, 0})
	f.Add(byte(PortSlot), []byte{6, 0, 0, 0, 0, 80, 0, 0, 1, 2, 3, 0})
	f.Add(byte(Front6), append(bytes.Repeat([]byte{0xfd}, 16), 17, 0, 0, 0, 0, 53, 0, 0))
	f.Add(byte(Interface), []byte("veth1\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		k := Addr4 + (KeyType(kind)-Addr4)%(lastKeyType-Addr4+1)
		key, ok := k.parse(slices.Clone(data))
		if !ok {
			return
		}
		if again := k.bytes(key); !bytes.Equal(again, data) {
			t.Errorf("key of type %s: % x is read as %v, which is % x", k, data, key, again)
		}
	})
}

// FuzzVerdict checks that no bytes make the verdict parser panic, and that it returns accept only for the
// kernel's accept.
func FuzzVerdict(f *testing.F) {
	for kind := Accept; kind <= Goto; kind++ {
		code, _ := (Verdict{Kind: kind}).kernel()
		f.Add(verdictBytes(int32(code), "chain"))
	}
	f.Add([]byte{})
	f.Add([]byte{8, 0, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := verdictOf(data)
		if err != nil || v.Kind != Accept {
			return
		}
		if !bytes.Contains(data, []byte{0, 0, 0, 1}) {
			t.Errorf("% x is read as accept", data)
		}
	})
}

func verdictBytes(code int32, chain string) []byte {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Uint32(unix.NFTA_VERDICT_CODE, uint32(code))
	if chain != "" {
		e.String(unix.NFTA_VERDICT_CHAIN, chain)
	}
	b, err := e.Encode()
	if err != nil {
		panic(err) // attributes of these lengths cannot be refused
	}
	return b
}

func TestVerdictsAreReadAsTheyAreWritten(t *testing.T) {
	for kind := Accept; kind <= Goto; kind++ {
		want := Verdict{Kind: kind}
		if kind >= Jump {
			want.Chain = "c"
		}
		code, _ := want.kernel()
		if got, err := verdictOf(verdictBytes(int32(code), want.Chain)); got != want || err != nil {
			t.Errorf("verdict = %v, %v, want %v", got, err, want)
		}
	}
	for _, other := range []int32{-1, 2, 3, -100} { // continue, stolen, queue, unknown
		if got, err := verdictOf(verdictBytes(other, "")); got.Kind != None || err != nil {
			t.Errorf("verdict %d = %v, %v, want none of ours", other, got, err)
		}
	}
}

// FuzzNotice checks that no notification makes the monitor panic, and that one which names our table is
// never missed.
func FuzzNotice(f *testing.F) {
	ours := append([]byte{unix.NFPROTO_INET, 0, 0, 0, 12, 0, 1, 0}, "podwall\x00"...)
	f.Add(uint16(unix.NFT_MSG_NEWRULE), ours)
	f.Add(uint16(unix.NFT_MSG_DELTABLE), ours)
	f.Add(uint16(unix.NFT_MSG_NEWCHAIN), []byte{unix.NFPROTO_IPV4, 0, 0, 0, 6, 0, 1, 0, 'a', 0, 0, 0, 4, 0, 4, 0x80})
	f.Add(uint16(unix.NFT_MSG_NEWSETELEM), []byte{unix.NFPROTO_IPV6, 0, 0, 0, 255, 255, 1, 0})
	f.Add(uint16(unix.NFT_MSG_NEWGEN), []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		var n Notice
		n.add(netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind)}, Data: slices.Clone(data)},
			func(t TableID) bool { return t.Name == "podwall" })
		if kind&0xff == unix.NFT_MSG_NEWGEN {
			if n != (Notice{}) {
				t.Errorf("the number of a generation is %+v", n)
			}
			return
		}
		if bytes.HasPrefix(data, ours) && !n.Table {
			t.Errorf("% x is about our table, and the notice is %+v", data, n)
		}
		if len(data) < 4 {
			return
		}
		_, err := netlink.NewAttributeDecoder(data[4:])
		if err == nil && data[0] != unix.NFPROTO_INET && data[0] != unix.NFPROTO_BRIDGE && n.Table {
			t.Errorf("% x is about another family, and the notice is %+v", data, n)
		}
	})
}

// FuzzIntervals reads disjoint intervals of a small world back unchanged. Each two bytes are an interval:
// its distance from the one before, and its length. Adjacent intervals would never be written, so they are
// foreign.
func FuzzIntervals(f *testing.F) {
	f.Add([]byte{0, 7, 1, 3})
	f.Add([]byte{0, 4, 1, 1})
	f.Add([]byte{0, 5, 0, 1})
	f.Add([]byte{0, 63, 0, 63})
	f.Fuzz(func(t *testing.T, data []byte) {
		type mark struct {
			key []byte
			end bool
		}
		var list []mark
		var want []inet.Range
		for at := 0; len(data) >= 2 && at < 1<<16; data = data[2:] {
			from := at + int(data[0])
			at = from + int(data[1]) + 1
			list = append(list, mark{worldAddr(from), false}, mark{worldAddr(at), true})
			want = append(want, inet.Range{First: worldElement(from), Last: worldElement(at - 1)})
		}
		slices.Reverse(list) // the kernel promises no order
		s := &Set{Name: "s", Key: Addr4, Interval: true}
		l := listing{key: s.Key}
		for _, m := range list {
			l.add(m.key, nil, m.end)
		}
		if whole := l.into(s); !whole || !slices.Equal(s.Ranges, want) {
			t.Errorf("%v are read as %v", want, s.Ranges)
		}
	})
}

func worldElement(i int) inet.Element {
	return inet.Element{Addr: netip.AddrFrom4([4]byte(worldAddr(i)))}
}

func worldAddr(i int) []byte { return []byte{10, byte(i >> 16), byte(i >> 8), byte(i)} }

// FuzzClassify builds rules from parts. A rule counts as dropping all invalid packets only if every part is
// understood.
func FuzzClassify(f *testing.F) {
	f.Add([]byte{2, 3, 4, 0})       // ct state invalid drop
	f.Add([]byte{2, 3, 4, 5, 0})    // … and another condition
	f.Add([]byte{2, 3, 0})          // cut short
	f.Add([]byte{6, 1, 2, 3, 4, 0}) // another state first
	f.Fuzz(func(t *testing.T, parts []byte) {
		var list []expr.Any
		known := true
		for _, p := range parts {
			e, ok := part(p)
			list, known = append(list, e), known && ok
		}
		met, verdict := classify(list)
		if !known && met == always {
			t.Errorf("%v has parts that narrow it, and is always met", parts)
		}
		if !slices.ContainsFunc(list, func(e expr.Any) bool { _, ok := e.(*expr.Verdict); return ok }) && verdict != nil {
			t.Errorf("%v has no verdict and gets one", parts)
		}
	})
}

// part returns an expression, and whether it can be in a rule that every invalid packet matches.
func part(p byte) (expr.Any, bool) {
	invalid := []byte{0, 0, 0, 0}
	binary.NativeEndian.PutUint32(invalid, uint32(CtInvalid))
	list := []struct {
		e  expr.Any
		ok bool
	}{
		{&expr.Verdict{Kind: expr.VerdictDrop}, true},
		{&expr.Counter{}, true},
		{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}, true},
		{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: invalid, Xor: make([]byte, 4)}, true},
		{&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)}, true},
		{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, false},
		{&expr.Match{Name: "limit"}, false},
		{&expr.Match{Name: "comment"}, true},
		{&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, false},
		{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)}, false},
		{nil, false},
	}
	c := list[int(p)%len(list)]
	return c.e, c.ok
}

// FuzzMapElement checks that a member of a data map that is taken for ours is written as the same bytes
// again, and that no bytes make the reader panic.
func FuzzMapElement(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 1, 2, 0, 0}, []byte{10, 0, 0, 9, 0x1f, 0x90, 0, 0})
	f.Add([]byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 1, 2, 3, 0}, []byte{10, 0, 0, 9, 0x1f, 0x90, 0, 1})
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		s := &Set{Key: Slot4, Data: Addr4Port}
		l := mapListing{set: s, chains: map[string]string{}}
		l.add(key, value, false)
		if !l.into() || s.Key == 0 {
			return // not ours
		}
		e := elements(s, s.Entries)[0]
		if !bytes.Equal(e.Key, key) || !bytes.Equal(e.Val, value) {
			t.Errorf("% x : % x is read as %v, which is % x : % x", key, value, s.Entries[0], e.Key, e.Val)
		}
	})
}

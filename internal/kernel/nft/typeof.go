// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// A key with a chosen number has no name in nft's language: it calls the number an integer, which has no
// size. Without a description in the set's user data the nft program aborts when anybody lists the table.
// The description is the expression that the key is made of, in nft's own encoding: what follows
// "typeof" in a listing, which nft can then load again. google/nftables cannot write it.

// numbers is the modulus in the description; the rules have others.
const numbers = 65536

// typeof returns the text of the description; empty if the key has a name.
func (s *Set) typeof() string {
	key := Front
	switch s.Key {
	case Slot4, Slot6:
	case PortSlot:
		key = ProtocolAndPort
	default:
		return ""
	}
	f := inet.IPv4
	if s.v6() {
		f = inet.IPv6
	}
	value := "verdict"
	if s.Data != 0 {
		value = Destination.text(f, inet.AnyProtocol) + " . th dport"
	}
	return fmt.Sprintf("typeof %s . numgen random mod %d : %s", key.text(f, inet.AnyProtocol), numbers, value)
}

// The numbers of nft's user data: types of expressions, of protocol headers and of their fields.
const (
	udataKeyTypeof  = 3
	udataDataTypeof = 4

	exprConcat  = 13
	exprPayload = 7
	exprMeta    = 9
	exprNumgen  = 23
	exprVerdict = 1

	headerIP, headerIP6, headerTransport = 12, 13, 11
	fieldDaddr, fieldDaddr6, fieldDport  = 12, 9, 2
	metaL4Proto                          = unix.NFT_META_L4PROTO
	numgenRandom                         = unix.NFT_NG_RANDOM
)

// v6 reports whether keys or values have IPv6 addresses.
func (s *Set) v6() bool { return s.Key == Slot6 || s.Data == Addr6Port }

// userData returns the description in nft's encoding; nil if the key has a name.
func (s *Set) userData() []byte {
	if s.typeof() == "" {
		return nil
	}
	address := udataExpr(exprPayload, headerIP, fieldDaddr)
	if s.v6() {
		address = udataExpr(exprPayload, headerIP6, fieldDaddr6)
	}
	port := udataExpr(exprPayload, headerTransport, fieldDport)
	key := [][]byte{udataExpr(exprMeta, metaL4Proto), port, udataExpr(exprNumgen, numgenRandom, numbers, 0)}
	if s.Key != PortSlot {
		key = slices.Insert(key, 0, address)
	}
	value := udataConcat(address, port)
	if s.Data == 0 {
		value = append(udataNumber(nil, 0, exprVerdict), 1, 0)
	}
	b := udataNumber(udataNumber(nil, 0, 0), 1, 0) // no byte order: the parts have their own
	b = userdata.Append(b, udataKeyTypeof, udataConcat(key...))
	b = userdata.Append(b, udataDataTypeof, value)
	b = udataNumber(b, userdata.NFTNL_UDATA_SET_DATA_INTERVAL, 0)
	const most = 256 - 3 // NFT_USERDATA_MAXLEN, without type, length and end of the comment
	if c := Clip(s.Comment); c != "" && len(b)+len(c) <= most {
		b = userdata.AppendString(b, userdata.NFTNL_UDATA_SET_COMMENT, c)
	}
	return b
}

// udataNumber appends a number, in the host's byte order.
func udataNumber(b []byte, kind userdata.Type, n uint32) []byte {
	return userdata.Append(b, kind, binary.NativeEndian.AppendUint32(nil, n))
}

// udataExpr encodes an expression with numbers.
func udataExpr(kind uint32, of ...uint32) []byte {
	var data []byte
	for i, n := range of {
		data = udataNumber(data, userdata.Type(i), n)
	}
	return userdata.Append(udataNumber(nil, 0, kind), 1, data)
}

// udataConcat encodes a concatenation.
func udataConcat(parts ...[]byte) []byte {
	var data []byte
	for i, p := range parts {
		data = userdata.Append(data, userdata.Type(i), p)
	}
	return userdata.Append(udataNumber(nil, 0, exprConcat), 1, data)
}

// describing returns a connection that adds the descriptions to the sets that the operations add, and sends
// over another socket; or c itself if no set needs one, or c can only commit. It costs a copy of each
// message, and sets that need a description are added with a new table only.
func (c *Conn) describing(ops []Op) (*Conn, error) {
	described := map[string][]byte{}
	for _, op := range ops {
		if op.Kind == AddSet && op.Set.userData() != nil {
			described[op.Set.Name] = op.Set.userData()
		}
	}
	if len(described) == 0 || c.lister == nil {
		return c, nil
	}
	// The library offers no other way to see its messages before they are sent.
	nl, err := nftables.New(nftables.WithTestDial(func(list []netlink.Message) ([]netlink.Message, error) {
		if len(list) == 0 {
			return nil, io.EOF // no answers beside errors
		}
		for i := range list {
			describe(&list[i], described)
		}
		return nil, c.lister.transact(list)
	}))
	if err != nil {
		return nil, fmt.Errorf("preparing to describe sets: %w", err)
	}
	other := *c
	other.nl = nl
	return &other, nil
}

// describe appends the description to a message that adds one of the sets.
func describe(m *netlink.Message, described map[string][]byte) {
	const general = 4
	if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSET || len(m.Data) < general {
		return
	}
	for kind, data, rest, ok := nextAttribute(m.Data[general:]); ok; kind, data, rest, ok = nextAttribute(rest) {
		if kind != unix.NFTA_SET_NAME || len(data) == 0 {
			continue
		}
		if d := described[string(data[:len(data)-1])]; d != nil {
			m.Data = append(slices.Clone(m.Data), rawAttribute(unix.NFTA_SET_USERDATA, d)...)
			m.Header.Length = uint32(unix.SizeofNlMsghdr + len(m.Data))
			return
		}
	}
}

func rawAttribute(kind uint16, data []byte) []byte {
	size := unix.SizeofNlAttr + len(data)
	b := binary.NativeEndian.AppendUint16(nil, uint16(size))
	b = append(binary.NativeEndian.AppendUint16(b, kind), data...)
	return append(b, make([]byte, align(size)-size)...)
}

// transact sends the messages of one transaction and returns the first error that the kernel reports.
func (l *lister) transact(list []netlink.Message) error {
	last, size := len(list)-2, 0 // the last one before the end of the batch
	for i := range list {
		list[i].Header.Sequence, list[i].Header.PID = 0, 0 // those of this socket
		list[i].Header.Flags &^= netlink.Echo
		size += align(int(list[i].Header.Length))
	}
	list[last].Header.Flags |= netlink.Acknowledge
	if err := l.nl.SetWriteBuffer(size + listBuffer); err != nil {
		return err
	}
	sent, err := l.nl.SendMessages(list)
	if err != nil {
		return err
	}
	for {
		answers, err := l.nl.Receive()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(answers, func(m netlink.Message) bool {
			return m.Header.Type == netlink.Error && m.Header.Sequence == sent[last].Header.Sequence
		}) {
			return nil
		}
	}
}

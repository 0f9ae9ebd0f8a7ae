// SPDX-License-Identifier: Apache-2.0

//go:build linux

package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/netns"
	testentry "github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { testentry.Try(m) }

// inside opens the connection table of a namespace of its own.
func inside(t testing.TB) *Conn {
	t.Helper()
	ns, err := netns.New()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() { check(t, ns.Close()) })
	var c *Conn
	check(t, ns.Do(func() (err error) {
		c, err = Open()
		return err
	}))
	t.Cleanup(func() { check(t, c.Close()) })
	return c
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// timeout is the lifetime of entries made by tests, in seconds.
const timeout = 600

// create makes entries, which only tests do.
func (c *Conn) create(list []inet.Connection) error {
	for len(list) > 0 {
		n := min(deleteBatch, len(list))
		first := c.seq + 1
		c.out = c.out[:0]
		for _, e := range list[:n] {
			start := len(c.out)
			b := c.append(subsystem, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, inet.FamilyOf(e.Orig.Src))
			b = tuple(b, attrOrig, e.Protocol, e.Orig)
			b = reply(b, e)
			b = attr(b, 7, binary.BigEndian.AppendUint32(nil, timeout)...)
			b = attr(b, 3, 0, 0, 0, 0x0e) // has seen an answer, assured, confirmed
			if e.Zone != 0 {
				b = attr(b, attrZone, number(e.Zone)...)
			}
			if e.Protocol == inet.TCP {
				b = protoInfo(b, e)
			}
			c.out = end(b, start)
		}
		if err := c.send(c.out); err != nil {
			return err
		}
		if made, err := c.acknowledged(first, n); err != nil || made != n {
			return errors.Join(err, fmt.Errorf("made %d of %d entries", made, n))
		}
		list = list[n:]
	}
	return nil
}

// reply is the tuple of replies, which NAT shall make if they come from another end and nothing else is the cause.
func reply(b []byte, e inet.Connection) []byte {
	r, o := e.Reply, e.Orig
	if e.Balanced || r.Src == o.Dst && r.SrcPort == o.DstPort {
		return tuple(b, attrReply, e.Protocol, r)
	}
	const natDst, minIP, maxIP, natProto, minPort, maxPort = 13, 1, 2, 3, 1, 2
	b = nested(b, natDst, func(b []byte) []byte {
		b = attr(attr(b, minIP, r.Src.AsSlice()...), maxIP, r.Src.AsSlice()...)
		return nested(b, natProto, func(b []byte) []byte {
			return attr(attr(b, minPort, number(r.SrcPort)...), maxPort, number(r.SrcPort)...)
		})
	})
	r.Src, r.SrcPort = o.Dst, o.DstPort
	return tuple(b, attrReply, e.Protocol, r)
}

// protoInfo is the state of a TCP connection: established, unless it is being opened or finished.
func protoInfo(b []byte, e inet.Connection) []byte {
	return nested(b, attrProtoInfo, func(b []byte) []byte {
		return nested(b, infoTCP, func(b []byte) []byte {
			state := byte(3)
			switch {
			case e.Finished:
				state = timeWait
			case e.Opening:
				state = synSent
			}
			b = attr(b, tcpState, state)
			if e.PickedUp {
				return attr(attr(b, tcpFlagsOrig, beLiberal, beLiberal), tcpFlagsReply, beLiberal, beLiberal)
			}
			return b
		})
	})
}

// entry is a connection without translation.
func entry(p inet.Protocol, src, dst string) inet.Connection {
	a, b := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return inet.Connection{Protocol: p,
		Orig:  inet.Tuple{Src: a.Addr(), SrcPort: a.Port(), Dst: b.Addr(), DstPort: b.Port()},
		Reply: inet.Tuple{Src: b.Addr(), SrcPort: b.Port(), Dst: a.Addr(), DstPort: a.Port()}}
}

// many returns n connections from many clients to 200 servers.
func many(n int) []inet.Connection {
	list := make([]inet.Connection, n)
	for i := range list {
		client := netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)})
		server := netip.AddrFrom4([4]byte{10, 244, 1, byte(i % 200)})
		port := uint16(30000 + i>>16)
		list[i] = entry(inet.TCP, netip.AddrPortFrom(client, port).String(), netip.AddrPortFrom(server, 80).String())
	}
	return list
}

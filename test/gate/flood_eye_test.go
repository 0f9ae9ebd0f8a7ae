// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
)

// sight is a frame that came into a namespace.
type sight struct {
	at       time.Time // as the kernel took it
	src, dst netip.Addr
	port     uint16 // destination
	proto    packet.Protocol
	others   bool // a bridge flooded it; it was meant for another one
}

func (s sight) String() string {
	return fmt.Sprintf("%s → %s %s:%d at %s", s.src, s.dst, s.proto, s.port, s.at.Format("05.000000"))
}

// eye sees every frame that enters a namespace by whatever interface, also by
// those that come later.
type eye struct{ fd int }

func openEye(t *testing.T, ns *netns.NS) eye {
	t.Helper()
	e := eye{}
	check(t, ns.Do(func() (err error) {
		if e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(e.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
			unix.Bind(e.fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8}))
	}))
	return e
}

func (e eye) close() error { return unix.Close(e.fd) }

const loopbackIndex = 1 // the kernel makes it first in a namespace

// drain returns what came since the last call, without what a link needs to
// work at all: ARP, neighbour discovery, multicast listeners.
func (e eye) drain(t *testing.T) (list []sight) {
	t.Helper()
	buf, control := make([]byte, 4096), make([]byte, 128)
	for range 200_000 {
		n, nc, _, from, err := unix.Recvmsg(e.fd, buf, control, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if errors.Is(err, unix.ENETDOWN) { // a link went away
			continue
		}
		check(t, err)
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok || link.Ifindex == loopbackIndex || n < 14 || housekeeping(buf[:n]) {
			continue
		}
		p, _, _ := packet.Parse(buf[14:n])
		list = append(list, sight{at: stamp(control[:nc]), src: p.Src, dst: p.Dst, port: p.DstPort,
			proto: p.Proto, others: link.Pkttype == unix.PACKET_OTHERHOST})
	}
	stats, err := unix.GetsockoptTpacketStats(e.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	check(t, err)
	if stats.Drops > 0 {
		t.Errorf("%d packets were not seen", stats.Drops)
	}
	return list
}

// housekeeping reports whether a frame is ARP, neighbour discovery or a report
// of multicast listeners, as the node's bridge sends at a random time. Frames that are not IP are not ours to judge.
func housekeeping(b []byte) bool {
	switch binary.BigEndian.Uint16(b[12:]) {
	case unix.ETH_P_IP:
		return len(b) >= 34 && b[23] == unix.IPPROTO_IGMP && b[30] == 224
	case unix.ETH_P_IPV6:
	default:
		return true
	}
	if len(b) >= 63 && b[20] == unix.IPPROTO_HOPOPTS && b[54] == unix.IPPROTO_ICMPV6 {
		return slices.Contains([]byte{130, 131, 132, 143}, b[62])
	}
	return len(b) >= 55 && b[20] == unix.IPPROTO_ICMPV6 && (b[54] >= 133 && b[54] <= 137 || b[54] == 143)
}

// awaitStamps returns when the kernel notes the time at which it takes a packet. It begins that a while after the
// first socket has asked for it, under load a third of a second; until then a packet has the time at which it is
// read. It goes on as long as there is such a socket.
func awaitStamps(t *testing.T) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	check(t, err)
	defer c.Close()
	raw, err := c.SyscallConn()
	check(t, err)
	check(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) }))
	check(t, err)
	buf, control := make([]byte, 64), make([]byte, 128)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		_, err := c.WriteTo([]byte("when"), c.LocalAddr())
		check(t, err)
		time.Sleep(5 * time.Millisecond)
		read := time.Now()
		_, n, _, _, err := c.ReadMsgUDP(buf, control)
		check(t, err)
		if stamp(control[:n]).Before(read) {
			return
		}
	}
	t.Fatal("the kernel notes no times")
}

// stamp returns the kernel's time of a packet.
func stamp(control []byte) time.Time {
	messages, _ := unix.ParseSocketControlMessage(control) // none, then it is now
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// mouth sends crafted packets from a namespace, over both families.
type mouth struct {
	name string
	ns   *netns.NS
	src  []netip.Addr // IPv4, IPv6
	fds  [2]int
	sent uint64
}

func openMouth(t *testing.T, name string, ns *netns.NS, src []netip.Addr) *mouth {
	t.Helper()
	m := &mouth{name: name, ns: ns, src: src}
	check(t, ns.Do(func() (err error) {
		for i, domain := range []int{unix.AF_INET, unix.AF_INET6} {
			if m.fds[i], err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
				return err
			}
		}
		return nil
	}))
	return m
}

// say sends a datagram and a SYN. That there is no way is no error, but not
// counted either.
func (m *mouth) say(dst netip.Addr, from, to uint16) error {
	i := 0
	var at unix.Sockaddr
	if dst.Is4() {
		at = &unix.SockaddrInet4{Addr: dst.As4()}
	} else {
		i, at = 1, &unix.SockaddrInet6{Addr: dst.As16()}
	}
	for _, p := range []packet.Packet{{Proto: packet.UDP, Payload: []byte("flooding")}, {Proto: packet.TCP, Flags: packet.SYN, Window: 1024, Seq: 1}} {
		p.Src, p.Dst, p.SrcPort, p.DstPort = m.src[i], dst, from, to
		err := unix.Sendto(m.fds[i], p.Bytes(), 0, at)
		switch {
		case err == nil:
			m.sent++
		case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENETDOWN):
		default:
			return fmt.Errorf("sending from %s to %s: %w", m.src[i], dst, err)
		}
	}
	return nil
}

func (m *mouth) close() error { return errors.Join(unix.Close(m.fds[0]), unix.Close(m.fds[1])) }

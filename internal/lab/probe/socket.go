// SPDX-License-Identifier: Apache-2.0

//go:build linux

package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/packet"
)

// socket is one that receives.
type socket struct {
	endpoint string
	fd       int
	// number is the IP protocol of a raw socket, whose packets come without
	// the IP header when v6 is set; zero for a packet socket.
	number byte
	v6     bool
}

const bufferSize = 8 << 20

// open opens all sockets; it runs inside the namespace.
func (ep *endpoint) open() (err error) {
	if ep.send4, err = sender(unix.AF_INET); err != nil {
		return err
	}
	if ep.send6, err = sender(unix.AF_INET6); err != nil {
		return err
	}
	if ep.Device != "" {
		return ep.openFrames()
	}
	for _, proto := range packet.Protocols {
		if err := ep.openRaw(unix.AF_INET, int(proto)); err != nil {
			return err
		}
		number := int(proto)
		if proto == packet.ICMP {
			number = unix.IPPROTO_ICMPV6
		}
		if err := ep.openRaw(unix.AF_INET6, number); err != nil {
			return err
		}
	}
	return nil
}

// sender opens a raw socket that takes packets with their IP header, for both
// families.
func sender(family int) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return -1, fmt.Errorf("opening a raw socket: %w", err)
	}
	if err := enlarge(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// enlarge asks for a large buffer. In a user namespace only what net.core
// allows to everybody is to be had; that must do, see burst.
func enlarge(fd, force, ask int) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bufferSize)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, ask, bufferSize)
	}
	if err != nil {
		return fmt.Errorf("enlarging a socket's buffer: %w", err)
	}
	return nil
}

// openFrames opens the packet socket. It belongs to no protocol until it is
// bound, so that nothing of other links is seen.
func (ep *endpoint) openFrames() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	ep.frames = fd
	ep.sockets = append(ep.sockets, &socket{endpoint: ep.Name, fd: fd})
	if ep.device, err = net.InterfaceByName(ep.Device); err != nil {
		return fmt.Errorf("finding link %s: %w", ep.Device, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("ignoring outgoing packets: %w", err)
	}
	if err := enlarge(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF); err != nil {
		return err
	}
	addr := &unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL), Ifindex: ep.device.Index}
	if err := unix.Bind(fd, addr); err != nil {
		return fmt.Errorf("binding to link %s: %w", ep.Device, err)
	}
	return nil
}

func (ep *endpoint) openRaw(family, number int) error {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, number)
	if err != nil {
		return fmt.Errorf("opening a raw socket: %w", err)
	}
	ep.sockets = append(ep.sockets, &socket{endpoint: ep.Name, fd: fd, number: byte(number),
		v6: family == unix.AF_INET6})
	if err := enlarge(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF); err != nil {
		return err
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			return fmt.Errorf("asking for destination addresses: %w", err)
		}
	}
	return nil
}

func (ep *endpoint) close() {
	for _, fd := range []int{ep.send4, ep.send6} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing is buffered that anybody waits for
		}
	}
	for _, s := range ep.sockets {
		_ = unix.Close(s.fd)
	}
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

// read receives until Close; it is the prober's one goroutine.
func (p *Prober) read() {
	defer close(p.done)
	events, buf := make([]unix.EpollEvent, 64), make([]byte, 65536)
	for {
		n, err := unix.EpollWait(p.poll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			p.readErr = fmt.Errorf("waiting for packets: %w", err)
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == int32(p.wake) {
				return
			}
			p.drain(e.Fd, buf)
		}
	}
}

// drain takes some packets of one socket; poll comes back for the rest. An
// error is a link that went away, which is not ours to judge.
func (p *Prober) drain(fd int32, buf []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sockets[fd]
	for range 256 {
		if s == nil || !p.receive(s, buf) {
			return
		}
	}
}

func (p *Prober) receive(s *socket, buf []byte) bool {
	control := make([]byte, 64)
	n, nc, _, from, err := unix.Recvmsg(s.fd, buf, control, 0)
	if err != nil {
		return false
	}
	pkt, kind, ok := s.parse(buf[:n], control[:nc], from)
	if ok {
		p.note(s.endpoint, pkt, kind)
	}
	return true
}

func (s *socket) parse(b, control []byte, from unix.Sockaddr) (packet.Packet, packet.Kind, bool) {
	switch from := from.(type) {
	case *unix.SockaddrLinklayer:
		// A bridge floods frames for others too: those did not arrive here.
		if from.Pkttype == unix.PACKET_HOST && len(b) > 14 {
			return packet.Parse(b[14:])
		}
	case *unix.SockaddrInet6:
		if dst, ok := destination(control); ok {
			return packet.ParseTransport(netip.AddrFrom16(from.Addr), dst, s.number, b)
		}
	case *unix.SockaddrInet4:
		return packet.Parse(b)
	}
	return packet.Packet{}, packet.Kind{}, false
}

// destination reads the address out of an IPV6_PKTINFO message.
func destination(control []byte) (netip.Addr, bool) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, m := range messages {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16 {
			return netip.AddrFromSlice(m.Data[:16])
		}
	}
	return netip.Addr{}, false
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package meter

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	payload      = 18 // bytes of a datagram: the smallest Ethernet frame
	askBytes     = 100
	answerBytes  = 650
	block        = 64 << 10
	streamBuffer = 4 << 20
	firstPort    = 1024
	lastPort     = 65000
	udpHeader    = 8
	patience     = 1 // second until a packet counts as lost
	warm         = 64
)

// measure does what the request asks, batch by batch.
func measure(r Request) ([]float64, error) {
	work, closing, err := prepare(r)
	if err != nil {
		return nil, errors.Join(err, closing())
	}
	var list []float64
	for range r.Times {
		before := cpuTime()
		if err := work(r.N); err != nil {
			return nil, errors.Join(err, closing())
		}
		list = append(list, float64(cpuTime()-before)/float64(r.N))
	}
	return list, closing()
}

// sockets are what a measurement opened.
type sockets struct{ list []int }

func (s *sockets) add(fd int, err error) (int, error) {
	if err == nil {
		s.list = append(s.list, fd)
	}
	return fd, err
}

func (s *sockets) close() error {
	var errs []error
	for _, fd := range s.list {
		errs = append(errs, shut(fd))
	}
	return errors.Join(errs...)
}

// prepare opens the sockets, and warms up. The work may be done several times.
func prepare(r Request) (work func(n int) error, closing func() error, err error) {
	s := &sockets{}
	switch r.Kind {
	case Established, Unanswered:
		work, err = s.flow(r)
	case First:
		work, err = s.flows(r)
	case Connection:
		work, err = s.connections(r)
	case Keepalive, Stream:
		work, err = s.connection(r)
	default:
		err = fmt.Errorf("unknown kind %q", r.Kind)
	}
	if err == nil {
		err = work(warm)
	}
	return work, s.close, err
}

// receiver opens the server's socket for datagrams.
func (s *sockets) receiver(r Request) (fd int, err error) {
	err = inside(r.To, func() error {
		a := newAddr(r.Server)
		if fd, err = s.add(socket(a.family, unix.SOCK_DGRAM, 0)); err != nil {
			return err
		}
		return errors.Join(bind(fd, a), waits(fd))
	})
	return fd, err
}

// waits bounds how long calls on a socket wait.
func waits(fd int) error {
	limit := &unix.Timeval{Sec: patience}
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, limit))
}

// deaf makes a socket drop everything that arrives, at no cost that depends on
// anything.
func deaf(fd int) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]}); err != nil {
		return fmt.Errorf("making a socket deaf: %w", err)
	}
	return nil
}

// flow readies one flow of datagrams. Unless it is to stay unanswered, both ends
// speak once: connection tracking then knows it as established.
func (s *sockets) flow(r Request) (func(int) error, error) {
	server, err := s.receiver(r)
	if err != nil {
		return nil, err
	}
	var client int
	err = inside(r.From, func() error {
		a := newAddr(r.Server)
		if client, err = s.add(socket(a.family, unix.SOCK_DGRAM, 0)); err != nil {
			return err
		}
		return errors.Join(waits(client), connect(client, a))
	})
	if err != nil {
		return nil, err
	}
	if r.Kind == Established {
		if err := greet(client, server); err != nil {
			return nil, err
		}
	}
	p := newParcel(payload)
	return func(n int) error { return p.all(client, n, func(int) {}) }, deaf(server)
}

// greet sends a datagram there and one back.
func greet(client, server int) error {
	b := make([]byte, payload)
	if err := send(client, b); err != nil {
		return err
	}
	_, from, err := unix.Recvfrom(server, b, 0)
	if err != nil {
		return fmt.Errorf("waiting for the first datagram: %w", err)
	}
	if err := unix.Sendto(server, b, 0, from); err != nil {
		return fmt.Errorf("answering the first datagram: %w", err)
	}
	_, err = receive(client, b)
	return err
}

// all sends n datagrams; fill is called for each parcel with its size.
func (p *parcel) all(fd, n int, fill func(int)) error {
	for n > 0 {
		size := min(n, parcelSize)
		fill(size)
		sent, err := p.send(fd, size)
		if err != nil {
			return err
		}
		if sent != size {
			return errShort
		}
		n -= size
	}
	return nil
}

// flows readies datagrams that each begin a flow. A raw socket lets the source
// port change without a socket for each.
func (s *sockets) flows(r Request) (func(int) error, error) {
	if need := r.N*r.Times + warm; need > lastPort-firstPort {
		return nil, fmt.Errorf("%d flows are more than there are source ports", need)
	}
	server, err := s.receiver(r)
	if err != nil {
		return nil, err
	}
	if err := deaf(server); err != nil {
		return nil, err
	}
	var client int
	err = inside(r.From, func() error {
		// The port of a raw address means a protocol.
		a := newAddr(netip.AddrPortFrom(r.Server.Addr(), 0))
		if client, err = s.add(socket(a.family, unix.SOCK_RAW, unix.IPPROTO_UDP)); err != nil {
			return err
		}
		if a.family == unix.AF_INET6 { // IPv4 has no need of a checksum
			err = unix.SetsockoptInt(client, unix.SOL_IPV6, unix.IPV6_CHECKSUM, 6)
		}
		return errors.Join(err, deaf(client), connect(client, a))
	})
	if err != nil {
		return nil, err
	}
	p, port := newParcel(udpHeader+payload), uint16(firstPort)
	for _, b := range p.buffers {
		b[2], b[3] = byte(r.Server.Port()>>8), byte(r.Server.Port())
		b[5] = udpHeader + payload
	}
	return func(n int) error {
		return p.all(client, n, func(size int) {
			for _, b := range p.buffers[:size] {
				b[0], b[1] = byte(port>>8), byte(port)
				port++
			}
		})
	}, nil
}

// listener opens the server's socket for connections.
func (s *sockets) listener(r Request) (fd int, err error) {
	err = inside(r.To, func() error {
		a := newAddr(r.Server)
		if fd, err = s.add(socket(a.family, unix.SOCK_STREAM, 0)); err != nil {
			return err
		}
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), waits(fd), bind(fd, a))
		if err == nil {
			err = unix.Listen(fd, 128)
		}
		return err
	})
	return fd, err
}

// connections readies requests that each have their own connection. The server
// closes first, as web servers do.
func (s *sockets) connections(r Request) (func(int) error, error) {
	listener, err := s.listener(r)
	if err != nil {
		return nil, err
	}
	if err := inside(r.From, func() error { return nil }); err != nil {
		return nil, err
	}
	a, buffer := newAddr(r.Server), make([]byte, 2048)
	return func(n int) error {
		for range n {
			if err := once(listener, a, buffer); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

func once(listener int, a *addr, buffer []byte) error {
	client, err := socket(a.family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := waits(client); err != nil {
		return errors.Join(err, shut(client))
	}
	if err := connect(client, a); err != nil {
		return errors.Join(err, shut(client))
	}
	server, err := accept(listener)
	if err != nil {
		return errors.Join(err, shut(client))
	}
	if err := exchange(client, server, buffer); err != nil {
		return errors.Join(err, shut(server), shut(client))
	}
	if err := shut(server); err != nil {
		return errors.Join(err, shut(client))
	}
	for { // until the server's end is seen
		if n, err := receive(client, buffer); err != nil || n == 0 {
			return errors.Join(err, shut(client))
		}
	}
}

// exchange sends a request and its answer. The client has the answer in its
// buffer when it is called next: the kernel carries it in our own time.
func exchange(client, server int, buffer []byte) error {
	if err := send(client, buffer[:askBytes]); err != nil {
		return err
	}
	if err := drain(server, buffer, askBytes); err != nil {
		return err
	}
	if err := send(server, buffer[:answerBytes]); err != nil {
		return err
	}
	return drain(client, buffer, answerBytes)
}

// drain receives exactly so many bytes.
func drain(fd int, buffer []byte, want int) error {
	for want > 0 {
		n, err := receive(fd, buffer[:min(want, len(buffer))])
		switch {
		case err != nil:
			return err
		case n == 0:
			return errShort
		}
		want -= n
	}
	return nil
}

// connection readies work on one connection that stays: requests, or a stream.
func (s *sockets) connection(r Request) (func(int) error, error) {
	listener, err := s.listener(r)
	if err != nil {
		return nil, err
	}
	var client, server int
	err = inside(r.From, func() error {
		a := newAddr(r.Server)
		if client, err = s.add(socket(a.family, unix.SOCK_STREAM, 0)); err != nil {
			return err
		}
		if err := errors.Join(waits(client), connect(client, a)); err != nil {
			return err
		}
		server, err = s.add(accept(listener))
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, fd := range []int{client, server} {
		err = errors.Join(err, waits(fd), unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1))
	}
	if r.Kind == Stream {
		return streaming(client, server), errors.Join(err, roomy(client), roomy(server))
	}
	buffer := make([]byte, 2048)
	return func(n int) error {
		for range n {
			if err := exchange(client, server, buffer); err != nil {
				return err
			}
		}
		return nil
	}, err
}

func roomy(fd int) error {
	return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, streamBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, streamBuffer))
}

// streaming sends n KiB, rounded up to blocks.
func streaming(client, server int) func(int) error {
	out, in := make([]byte, block), make([]byte, block)
	return func(n int) error {
		for range (n<<10 + block - 1) / block {
			if err := send(client, out); err != nil {
				return err
			}
			if err := drain(server, in, block); err != nil {
				return err
			}
		}
		return nil
	}
}

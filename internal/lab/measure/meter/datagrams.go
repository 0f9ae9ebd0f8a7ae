// SPDX-License-Identifier: Apache-2.0

//go:build linux

package meter

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

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

// deaf makes a socket drop everything that arrives, at no cost that depends on
// anything.
func deaf(fd int) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &drop[0]}); err != nil {
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

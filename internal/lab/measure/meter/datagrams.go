// SPDX-License-Identifier: Apache-2.0

//go:build linux

package meter

import (
	"errors"
	"fmt"

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
		a := r.called()[0]
		if client, err = s.add(socket(a.family, unix.SOCK_DGRAM, 0)); err != nil {
			return err
		}
		return errors.Join(waits(client), connect(client, a))
	})
	if err != nil {
		return nil, err
	}
	if r.Kind == Established {
		if err := greet(client, server, newAddr(r.Server).family); err != nil {
			return nil, err
		}
	}
	p := newParcel(payload)
	return func(n int) error { return p.all(client, n, func(int) {}) }, deaf(server)
}

// greet sends a datagram there and one back. The answer comes from the address that was called: a server of
// several has to say so (IP_PKTINFO, ip(7)).
func greet(client, server, family int) error {
	level, option := unix.SOL_IP, unix.IP_PKTINFO
	if family == unix.AF_INET6 {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVPKTINFO
	}
	if err := unix.SetsockoptInt(server, level, option, 1); err != nil {
		return fmt.Errorf("asking for the address that was called: %w", err)
	}
	b, called := make([]byte, payload), make([]byte, 128)
	if err := send(client, b); err != nil {
		return err
	}
	_, n, _, from, err := unix.Recvmsg(server, b, called, 0)
	if err != nil {
		return fmt.Errorf("waiting for the first datagram: %w", err)
	}
	if err := unix.Sendmsg(server, b, called[:n], from, 0); err != nil {
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
	fronts := r.called()
	var client int
	err = inside(r.From, func() error {
		if client, err = s.add(socket(fronts[0].family, unix.SOCK_RAW, unix.IPPROTO_UDP)); err != nil {
			return err
		}
		if fronts[0].family == unix.AF_INET6 { // IPv4 has no need of a checksum
			err = unix.SetsockoptInt(client, unix.SOL_IPV6, unix.IPV6_CHECKSUM, 6)
		}
		return errors.Join(err, deaf(client), connect(client, fronts[0].bare()))
	})
	if err != nil {
		return nil, err
	}
	p, port, next := newParcel(udpHeader+payload), uint16(firstPort), 0
	for i, f := range fronts {
		fronts[i] = f.bare()
	}
	return func(n int) error {
		return p.all(client, n, func(size int) {
			for i, b := range p.buffers[:size] {
				to := fronts[next]
				if len(fronts) > 1 { // one is the connected one
					p.address(i, to)
				}
				b[0], b[1] = byte(port>>8), byte(port)
				b[2], b[3] = byte(to.port>>8), byte(to.port)
				b[5] = udpHeader + payload
				port++
				if next++; next == len(fronts) {
					next = 0
				}
			}
		})
	}, nil
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package meter

import (
	"errors"

	"golang.org/x/sys/unix"
)

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
	fronts, next, buffer := r.called(), 0, make([]byte, 2048)
	return func(n int) error {
		for range n {
			if err := once(listener, fronts[next], buffer); err != nil {
				return err
			}
			next = (next + 1) % len(fronts)
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
		a := r.called()[0]
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

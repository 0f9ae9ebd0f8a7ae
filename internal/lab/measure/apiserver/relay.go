// SPDX-License-Identifier: Apache-2.0

//go:build linux

package apiserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/podwall/podwall/internal/lab/netns"
)

// Relay makes the address of a server that was started alone answer inside a namespace too, until it is
// closed.
func (s *Server) Relay(ctx context.Context, inside *netns.NS) (io.Closer, error) {
	l, err := inside.Listen(ctx, "tcp", s.addr.String())
	if err != nil {
		return nil, fmt.Errorf("relaying to the API server: %w", err)
	}
	r := &relay{Listener: l, conns: map[net.Conn]bool{}}
	r.running.Go(func() { r.serve(ctx, s) })
	return r, nil
}

type relay struct {
	net.Listener
	running sync.WaitGroup
	mu      sync.Mutex // guards conns and closed
	conns   map[net.Conn]bool
	closed  bool
}

func (r *relay) serve(ctx context.Context, s *Server) {
	for {
		near, err := r.Accept()
		if err != nil {
			return // closed
		}
		far, err := s.ns.Dial(ctx, "tcp", s.addr.String())
		if err != nil || !r.keep(near, far) {
			_ = near.Close() // the client sees it and tries again
			continue
		}
		r.running.Go(func() { r.copy(near, far) })
		r.running.Go(func() { r.copy(far, near) })
	}
}

func (r *relay) keep(list ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range list {
		if r.closed {
			_ = c.Close() // nothing was sent on it
		} else {
			r.conns[c] = true
		}
	}
	return !r.closed
}

// copy goes on until one end closes, which closes the other.
func (r *relay) copy(to, from net.Conn) {
	_, _ = io.Copy(to, from) // either end may go away at any time
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range []net.Conn{to, from} {
		_ = c.Close() // the second of two is an error
		delete(r.conns, c)
	}
}

// Close ends the relay and its connections.
func (r *relay) Close() error {
	err := r.Listener.Close()
	r.mu.Lock()
	r.closed = true
	for c := range r.conns {
		_ = c.Close() // it may be closed already
	}
	r.mu.Unlock()
	r.running.Wait()
	return err
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay carries TCP connections to a server. Those that are stalled stay open and
// carry nothing.
type relay struct {
	net.Listener
	to string

	mu      sync.Mutex // guards what follows
	stalled chan struct{}
	conns   []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to, stalled: make(chan struct{})}
	var running sync.WaitGroup
	running.Go(func() { r.run(&running) })
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close() // the other end may have
		}
		r.mu.Unlock()
		running.Wait()
	})
	return r
}

func (r *relay) run(running *sync.WaitGroup) {
	for {
		in, err := r.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.to)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		stalled := r.stalled
		r.mu.Unlock()
		running.Go(func() { carry(in, out, stalled) })
		running.Go(func() { carry(out, in, stalled) })
	}
}

// carry copies until an end closes. What comes when it is stalled is swallowed.
func carry(to io.WriteCloser, from io.Reader, stalled <-chan struct{}) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-stalled:
		default:
			if n > 0 && err == nil {
				_, err = to.Write(buf[:n])
			}
		}
		if err != nil {
			_ = to.Close() // it is gone anyway
			return
		}
	}
}

// stall lets the connections that are open die in silence. New ones are carried.
func (r *relay) stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.stalled)
	r.stalled = make(chan struct{})
}

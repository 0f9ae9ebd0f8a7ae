// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nri

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// wire leads connections on to a runtime and can be cut, as when the runtime
// dies: the library that we test with keeps its connections when it is stopped.
type wire struct {
	listener net.Listener
	runtime  string
	mu       sync.Mutex // guards conns
	conns    []net.Conn
}

func newWire(t *testing.T, path, runtime string) *wire {
	t.Helper()
	l, err := net.Listen("unix", path)
	check(t, err)
	w := &wire{listener: l, runtime: runtime}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.lead(c)
		}
	}()
	t.Cleanup(func() {
		check(t, l.Close())
		<-done
		w.cut()
	})
	return w
}

func (w *wire) lead(near net.Conn) {
	far, err := net.Dial("unix", w.runtime)
	if err != nil {
		_ = near.Close() // there is no runtime
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, near, far)
	w.mu.Unlock()
	go func() { _, _ = io.Copy(far, near); _ = errors.Join(far.Close(), near.Close()) }()
	go func() { _, _ = io.Copy(near, far); _ = errors.Join(far.Close(), near.Close()) }()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close() // one end may have closed it
	}
	w.conns = nil
}

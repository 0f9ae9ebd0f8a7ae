// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/lab/netns"
)

// relay stands between the agent and the API server, and forwards bytes unchanged, slowly, or not at all.
type relay struct {
	listener net.Listener
	server   string
	dial     func(address string) (net.Conn, error)
	delay    atomic.Int64 // nanoseconds, before each piece
	running  sync.WaitGroup

	mu    sync.Mutex
	halt  chan struct{} // closed when bytes flow again; nil while they do
	conns map[net.Conn]bool
}

// newRelay listens on the port next to the server's.
func newRelay(t *testing.T, ns *netns.NS, server netip.AddrPort) *relay {
	t.Helper()
	l, err := ns.Listen(t.Context(), "tcp", netip.AddrPortFrom(server.Addr(), server.Port()+1).String())
	check(t, err)
	r := &relay{listener: l, server: server.String(), conns: map[net.Conn]bool{}}
	ctx := t.Context()
	r.dial = func(address string) (net.Conn, error) { return ns.Dial(ctx, "tcp", address) }
	r.running.Go(r.accept)
	t.Cleanup(func() {
		check(t, l.Close())
		r.flow()
		r.cut()
		r.running.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		server, err := r.dial(r.server)
		if err != nil {
			_ = client.Close() // as if it had been refused
			continue
		}
		r.mu.Lock()
		r.conns[client], r.conns[server] = true, true
		r.mu.Unlock()
		r.running.Go(func() { r.copy(client, server) })
		r.running.Go(func() { r.copy(server, client) })
	}
}

func (r *relay) copy(from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close() // the other direction may have done it
		r.mu.Lock()
		delete(r.conns, from)
		r.mu.Unlock()
	}()
	buf := make([]byte, 32768)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		halt := r.halt
		r.mu.Unlock()
		if halt != nil {
			<-halt
		}
		time.Sleep(time.Duration(r.delay.Load()))
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// stall keeps all connections open and forwards nothing.
func (r *relay) stall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halt = make(chan struct{})
}

// flow ends a stall.
func (r *relay) flow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.halt != nil {
		close(r.halt)
		r.halt = nil
	}
}

// cut closes all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close() // its copier may have done it
	}
}

// front is an HTTP server in front of the API server, which can answer by itself. The agent talks to it
// without encryption.
type front struct {
	proxy *httputil.ReverseProxy

	mu      sync.Mutex
	current context.Context // of the watches that run
	cancel  context.CancelFunc
	expired int // so many more watches end with 410
	refused int // so many more requests are answered with 500
	gone    int // how many watches were
}

func newFront(t *testing.T, ns *netns.NS, at netip.AddrPort, config *rest.Config,
	modify func(*http.Response) error) *front {
	t.Helper()
	transport, err := rest.TransportFor(config)
	check(t, err)
	target, err := url.Parse(config.Host)
	check(t, err)
	f := &front{proxy: httputil.NewSingleHostReverseProxy(target)}
	f.current, f.cancel = context.WithCancel(t.Context())
	f.proxy.Transport, f.proxy.FlushInterval, f.proxy.ErrorLog = transport, -1, log.New(io.Discard, "", 0)
	f.proxy.ModifyResponse = modify // before the first request
	l, err := ns.Listen(t.Context(), "tcp", at.String())
	check(t, err)
	server := &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { f.expire(0); check(t, server.Close()); <-done; f.cancel() })
	return f
}

// expire ends the running watches, and answers that many of the next ones with 410.
func (f *front) expire(watches int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expired = watches
	f.cancel()
	f.current, f.cancel = context.WithCancel(context.Background())
}

func (f *front) refuse(requests int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = requests
}

func (f *front) expirations() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone
}

// ServeHTTP answers or forwards.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	watch := strings.Contains(r.URL.RawQuery, "watch=")
	f.mu.Lock()
	current, refuse := f.current, f.refused > 0
	expire := watch && !refuse && f.expired > 0
	if refuse {
		f.refused--
	}
	if expire {
		f.expired--
		f.gone++
	}
	f.mu.Unlock()
	switch {
	case refuse:
		http.Error(w, "out of order", http.StatusInternalServerError)
	case expire:
		w.Header().Set("Content-Type", "application/json")
		status := map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
			"message": "too old resource version"}
		text, _ := json.Marshal(map[string]any{"type": "ERROR", "object": status})
		fmt.Fprintln(w, string(text))
	case watch:
		ctx, end := context.WithCancel(r.Context())
		defer end()
		defer context.AfterFunc(current, end)()
		f.proxy.ServeHTTP(w, r.WithContext(ctx)) // cut off in the middle, it has no orderly end
	default:
		f.proxy.ServeHTTP(w, r)
	}
}

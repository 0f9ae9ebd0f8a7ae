// SPDX-License-Identifier: Apache-2.0

// Package web builds HTTP servers for small pages at ports that anybody on the network may reach. Time, size
// and the number of connections are bounded. It listens nowhere: its callers own the ports.
package web

import (
	"container/list"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// MaxWaiting is how many connections may be open at a port without a request that is being answered. Each
// costs some 20 kB.
const MaxWaiting = 64

// New returns a server for the handler, whose pages must be small and quick. log receives what net/http
// complains about, at debug level; nil means nowhere.
func New(handler http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           handler,
		ConnState:         (&waiting{at: map[net.Conn]*list.Element{}}).state,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

// waiting closes the connections that wait longest when there are too many. It refuses no client: a probe
// that comes last is answered. A connection waits until its request was read, so one that sends a request
// slowly waits, too.
type waiting struct {
	mu    sync.Mutex // guards what follows
	order list.List  // of net.Conn, the one that waits longest first
	at    map[net.Conn]*list.Element
}

// state is an http.Server's ConnState.
func (w *waiting) state(c net.Conn, s http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := w.at[c]; ok {
		w.order.Remove(e)
		delete(w.at, c)
	}
	if s != http.StateNew && s != http.StateIdle {
		return
	}
	w.at[c] = w.order.PushBack(c)
	if w.order.Len() > MaxWaiting {
		oldest := w.order.Front()
		delete(w.at, oldest.Value.(net.Conn))
		_ = w.order.Remove(oldest).(net.Conn).Close() // its server hears of it
	}
}

// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// maxWaiting is how many connections may be open at a port without a request that
// is being answered. Each costs some 20 kB, and anybody who reaches the port can
// open them.
const maxWaiting = 64

// waiting closes the connections that wait longest when there are too many. It
// refuses no client: a probe that comes last is answered.
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
	if w.at == nil {
		w.at = map[net.Conn]*list.Element{}
	}
	w.at[c] = w.order.PushBack(c)
	if w.order.Len() > maxWaiting {
		oldest := w.order.Front()
		delete(w.at, oldest.Value.(net.Conn))
		_ = w.order.Remove(oldest).(net.Conn).Close() // its server hears of it
	}
}

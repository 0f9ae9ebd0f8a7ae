// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"sync"
	"time"
)

// waker calls a function at once, and once more for all that came in the quiet
// time after that.
type waker struct {
	mu    sync.Mutex
	f     func()
	calm  *time.Timer // set while no call is due
	again bool
}

func newWaker(f func()) *waker { return &waker{f: f} }

func (w *waker) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm != nil {
		w.again = true
		return
	}
	w.f()
	w.calm = time.AfterFunc(quiet, w.over)
}

// over ends the quiet time.
func (w *waker) over() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm == nil {
		return // stopped
	}
	w.calm = nil
	if w.again {
		w.again = false
		w.f()
		w.calm = time.AfterFunc(quiet, w.over)
	}
}

// stop makes sure that the function is not called any more.
func (w *waker) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm != nil {
		w.calm.Stop()
	}
	w.calm, w.again = nil, false
}

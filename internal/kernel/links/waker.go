// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"sync"
	"time"
)

// waker calls a function at once, and once more after the quiet time if there were wake-ups in it.
type waker struct {
	mu    sync.Mutex
	f     func()
	calm  *time.Timer // set during the quiet time
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

// stop makes sure that the function is not called again.
func (w *waker) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm != nil {
		w.calm.Stop()
	}
	w.calm, w.again = nil, false
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tables

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/wake"
)

// events collect other programs' changes of our tables between two Applys.
type events struct {
	wake  wake.Signal                                   // holds at most one wake-up
	ports [len(inet.Families)]atomic.Pointer[nft.Ports] // of our nftables connections

	mu      sync.Mutex // guards pending
	pending nft.Notice
}

func (e *events) init() { e.wake = wake.New() }

// mine notes the netlink ports of a family's connection.
func (e *events) mine(family int, ports nft.Ports) { e.ports[family].Store(&ports) }

// own reports whether that netlink port is one of ours.
func (e *events) own(port uint32) bool {
	for i := range e.ports {
		if p := e.ports[i].Load(); p != nil && p.Has(port) {
			return true
		}
	}
	return false
}

// Changed receives when an Apply has something to do that no change of the model asks for.
func (e *events) Changed() <-chan struct{} { return e.wake }

// Wake makes Changed receive, for an owner that has something to do. Any goroutine may call it.
func (e *events) Wake() { e.wake.Set() }

func (e *events) note(n nft.Notice) {
	if !n.Table && !n.Lost {
		return // what others do elsewhere does not concern the tables
	}
	e.mu.Lock()
	e.pending.Table, e.pending.Lost = e.pending.Table || n.Table, e.pending.Lost || n.Lost
	e.mu.Unlock()
	e.wake.Set()
}

func (e *events) take() nft.Notice {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.pending
	e.pending = nft.Notice{}
	return n
}

// rewatch is the pause before a failed watch is restarted.
const rewatch = time.Second

// Watch listens for other programs' changes until ctx ends. A failed watch is restarted, and all that it may
// have missed counts as changed.
func (t *Tables) Watch(ctx context.Context) error {
	ours := func(id nft.TableID) bool { return slices.Contains(ruleset.Tables(), id) }
	for ctx.Err() == nil {
		if err := nft.Monitor(ctx, t.own, ours, t.note); err != nil && ctx.Err() == nil {
			t.log.Error("watching the tables of Services failed, restarting", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rewatch):
		}
	}
	return nil
}

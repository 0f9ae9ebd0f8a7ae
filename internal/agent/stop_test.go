// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/observe"
)

// kernel counts what the loop asks for.
type kernel struct {
	applied int
	cut     int
	failure error // of Cut
	denied  chan struct{}
	entries atomic.Uint32 // of the connection table, which can have 100
}

func (k *kernel) Apply(context.Context, *program.Program) (datapath.Report, error) {
	k.applied++
	return datapath.Report{}, nil
}
func (k *kernel) Cut(context.Context) (datapath.Cuts, error) {
	k.cut++
	return datapath.Cuts{Ingress: 1, Refused: 7}, k.failure
}
func (k *kernel) Denied() <-chan struct{}              { return k.denied }
func (k *kernel) Verify() error                        { return nil }
func (k *kernel) Changed() <-chan struct{}             { return nil }
func (k *kernel) Counters() (map[string]uint64, error) { return nil, nil }
func (k *kernel) Connections() (entries, limit uint32, err error) {
	return k.entries.Load(), 100, nil
}

func newLoop(k *kernel) *agent.Loop {
	return &agent.Loop{
		Node: "node1", Store: cluster.NewStore(), Kernel: k, Log: slog.New(slog.DiscardHandler),
		Observer:   observe.New(observe.NewRegistry(), observe.Info{Node: "node1"}),
		SyncPeriod: time.Minute, SyncTimeout: time.Minute,
	}
}

// Invariant 2. A store that is not synced is empty: its program opens
// everything that an earlier process had closed.
func TestAgentThatStopsBeforeTheFirstSyncLeavesTheKernelAlone(t *testing.T) {
	for range 100 { // one wrong turn of a select is enough
		k := &kernel{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newLoop(k).Run(ctx); err != nil {
			t.Fatalf("running: %v, want no error from being stopped", err)
		}
		if k.applied > 0 {
			t.Fatal("the loop applied a program before the first sync")
		}
	}
}

func TestSyncThatTakesTooLongIsAnErrorAndLeavesTheKernelAlone(t *testing.T) {
	k := &kernel{}
	loop := newLoop(k)
	loop.SyncTimeout = time.Millisecond
	if err := loop.Run(t.Context()); err == nil || k.applied > 0 {
		t.Errorf("error %v after %d programs, want an error after none", err, k.applied)
	}
}

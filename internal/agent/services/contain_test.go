// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/foreign"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// broken panics at one pass.
type broken struct {
	*kernel
	passes int
	at     int
}

func (k *broken) Apply(ctx context.Context, want tables.Desired) (tables.Report, error) {
	if k.passes++; k.passes == k.at {
		panic("an odd Service")
	}
	return k.kernel.Apply(ctx, want)
}

func noOthers(context.Context) (foreign.Inventory, error) { return foreign.Inventory{}, nil }

// A loop that had a panic ends, with all that it began and the problems that it set. The next one has everything
// from the same store.
func TestALoopAfterAPanic(t *testing.T) {
	for _, at := range []int{1, 2} { // before and after it looks for other proxies
		s := newStage(t)
		s.Loop.Kernel = &broken{kernel: s.kernel, at: at}
		s.Options.ClusterPods, s.Others = nil, &Others{Look: noOthers, Log: s.Log}
		s.fill("10.244.1.1")
		ended := make(chan error, 1)
		go func() {
			ended <- Contain(func() error { s.Run(t.Context()); return nil })
		}()
		if at == 2 {
			s.await("served", func(x observe.Services) bool { return x.Services == 1 })
			s.fill("10.244.1.2")
		}
		select {
		case err := <-ended:
			if err == nil || !strings.HasPrefix(err.Error(), "panic: an odd Service\n") {
				t.Fatalf("the loop ended with %v", err)
			}
		case <-time.After(2 * time.Minute):
			t.Fatal("the loop did not end")
		}
		s.problem(observe.Problem{Subject: "of the loop"})
		s.Forget()
		if slices.ContainsFunc(s.Observer.Status().Problems, func(p observe.Problem) bool { return p.Subject == "of the loop" }) {
			t.Error("a problem of the loop stays")
		}
		s.fill("10.244.1.3")
		s.Store.RestartServices()
		s.Loop = &Loop{Store: s.Store, Kernel: s.kernel, Observer: s.Observer, Log: s.Log, Options: s.Options,
			Moved: s.Moved, SyncPeriod: s.SyncPeriod, Local: s.Local}
		s.run()
		s.until("what the store has", func(m *service.Model) bool { return leads("10.244.1.3:8080")(m) })
	}
}

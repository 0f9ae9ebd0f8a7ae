// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/foreign"
	"github.com/podwall/podwall/internal/proxy/program"
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

// A change that has a panic leaves no index: nobody is told names of one that is half changed, and nobody who
// asks has a panic or waits.
func TestNoNamesAfterAPanicInAChange(t *testing.T) {
	s := newStage(t)
	s.fill("10.244.1.1")
	s.index = service.NewIndex(s.Options.settings(nil, nil, s.Store.Reserved(s.Options.APIServer)))
	delta := s.Store.TakeServices()
	if err := s.change(func(x *service.Index) error { return x.Apply(t.Context(), &delta) }); err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(vip(), 80)
	backend := program.Front{Addr: netip.MustParseAddr("10.244.1.1"), Protocol: inet.TCP, Port: 8080}
	names := func() string {
		return fmt.Sprintf("%q %q", s.Named(inet.TCP, at), s.Behind([]program.Front{backend}))
	}
	if got := names(); strings.Count(got, "web") != 2 {
		t.Fatalf("before the panic: %s", got)
	}
	s.fill("10.244.1.2")
	delta = s.Store.TakeServices()
	err := Contain(func() error {
		return s.change(func(x *service.Index) error {
			if err := x.Apply(t.Context(), &delta); err != nil {
				return err
			}
			panic("half changed")
		})
	})
	if err == nil {
		t.Fatal("the panic is not handed on")
	}
	if got := names(); got != `"" [[]]` {
		t.Errorf("after the panic: %s", got)
	}
}

// Who asks for names is not the loop, and must not end the process: what an index cannot answer is logged once.
func TestAskingForNamesHasNoPanic(t *testing.T) {
	s := newStage(t)
	var out bytes.Buffer
	s.Log = slog.New(slog.NewTextHandler(&out, nil))
	asked := 0
	for range 3 {
		s.answer(func() {
			s.look(func(*service.Index) {})
			asked++
			s.index = new(service.Index)
			s.look(func(*service.Index) { panic("an odd Service") })
		})
	}
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
	if got := s.Behind(make([]program.Front, 2)); len(got) != 2 || s.Named(inet.TCP, netip.AddrPort{}) != "" {
		t.Errorf("got %v for two", got)
	}
	if text := out.String(); strings.Count(text, "level=ERROR") != 1 || !strings.Contains(text, "an odd Service") {
		t.Errorf("the log: %s", text)
	}
	if err := s.change(func(*service.Index) error { return nil }); err != nil { // the loop is not locked out
		t.Error(err)
	}
}

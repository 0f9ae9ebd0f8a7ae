// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
)

// weights returns the weights of the backends of the front web, by name.
func (w *world) weights(t *testing.T) map[string]uint32 {
	t.Helper()
	s, _ := w.virtual(t)
	got := map[string]uint32{}
	for _, d := range s.Destinations {
		got[w.names[d.Addr]] = d.Weight
	}
	return got
}

// wants compares weights: -1 is for a backend that must be gone.
func (w *world) wants(t *testing.T, when string, own, far int) {
	t.Helper()
	got := w.weights(t)
	for name, want := range map[string]int{ownPod: own, farPod: far} {
		is, there := got[name]
		if there != (want >= 0) || there && int(is) != want {
			t.Errorf("%s: weights %v, want %s %d (-1: gone)", when, got, name, want)
		}
	}
}

// A terminating backend keeps the connections that it has and gets no new ones, also across a restart. It
// goes when they have ended.
func TestIPVSLetsConnectionsEnd(t *testing.T) {
	for _, left := range [][]string{{farPod}, nil} { // another backend, and none
		name := "to another backend"
		if left == nil {
			name = "without another backend"
		}
		t.Run(name, func(t *testing.T) {
			w := newHolding(t, inet.IPv4)
			serving := func(_ program.Front, b program.Backend) bool { return b.Addr == w.own }
			w.ipvs.serving = serving
			w.apply(t, w.holding(program.Schedule{}, 0, ownPod))
			old := w.dial(t, localPod)
			if got := old.mustAsk(t); got != ownPod {
				t.Fatalf("the first connection goes to %s", got)
			}
			less, far := w.holding(program.Schedule{}, 0, left...), len(left)*2-1
			w.apply(t, less)
			w.drains(t, "after the backend began to end", old, far)

			w.ipvs = w.startIPVS(t)
			w.ipvs.serving = serving
			w.apply(t, less)
			w.drains(t, "after a restart", old, far)

			old.reset(t)
			for end := time.Now().Add(2 * time.Minute); w.has(t, ownPod); time.Sleep(100 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the backend stays: %v", w.weights(t))
				}
				w.apply(t, less) // as Watch has it done
			}
			w.wants(t, "after the last connection", -1, far)
			if _, there := w.virtual(t); there != (left != nil) {
				t.Errorf("the virtual service is there: %v", there)
			}
		})
	}
}

// Whatever the scheduler: no client is refused while a backend ends its connections, and with dh it is gone.
func TestIPVSRefusesNobodyWhileABackendEnds(t *testing.T) {
	byPort := program.ByPort // so that some connections hash to the backend that ends
	for _, tt := range []struct {
		schedule program.Schedule
		own      int
	}{
		{program.Schedule{Scheduler: program.RoundRobin}, 0},
		{program.Schedule{Scheduler: program.LeastConnection}, 0},
		{program.Schedule{Scheduler: program.SourceHash, Options: byPort}, 0},
		{program.Schedule{Scheduler: program.Maglev, Options: byPort}, 0},
		{program.Schedule{Scheduler: program.DestinationHash}, -1},
	} {
		t.Run(tt.schedule.Scheduler.String(), func(t *testing.T) {
			w := newHolding(t, inet.IPv4)
			w.ipvs.serving = func(_ program.Front, b program.Backend) bool { return b.Addr == w.own }
			w.apply(t, w.holding(tt.schedule, 0, ownPod))
			old := w.dial(t, localPod)
			old.mustAsk(t)
			w.apply(t, w.holding(tt.schedule, 0, ownPod, farPod))
			w.apply(t, w.holding(tt.schedule, 0, farPod))
			w.wants(t, "while it ends", tt.own, 1)
			if got := w.answers(t, localPod, 20); got[farPod] != 20 {
				t.Errorf("new connections go to %v", got)
			}
			if tt.own < 0 {
				return
			}
			if got := old.mustAsk(t); got != ownPod {
				t.Errorf("the old connection is answered by %q", got)
			}
		})
	}
}

func (w *world) has(t *testing.T, name string) bool {
	t.Helper()
	_, there := w.weights(t)[name]
	return there
}

// drains wants the old connection to go on, and new ones to go to the other backend, if there is one.
func (w *world) drains(t *testing.T, when string, old *held, far int) {
	t.Helper()
	w.wants(t, when, 0, far)
	if got := old.mustAsk(t); got != ownPod {
		t.Errorf("%s: the old connection is answered by %q", when, got)
	}
	if far < 0 {
		if got := w.once(t, stranger, "tcp", netip.AddrPortFrom(w.web, port)); got != refused {
			t.Errorf("%s: a new connection: %s", when, got)
		}
		return
	}
	if got := w.answers(t, stranger, 3); got[farPod] != 3 {
		t.Errorf("%s: new connections go to %v", when, got)
	}
}

// What is gone takes its connections along: the client hears at once, and connects again.
func TestIPVSEndsConnectionsOfBackendsThatAreGone(t *testing.T) {
	w := newHolding(t, inet.IPv4)
	w.apply(t, w.holding(program.Schedule{}, 0, ownPod))
	old := w.dial(t, localPod)
	old.mustAsk(t)
	w.apply(t, w.holding(program.Schedule{}, 0, farPod)) // nobody says that the other one serves
	w.wants(t, "after the backend went", -1, 1)
	if name, err := old.ask(); err == nil {
		t.Errorf("the connection is still answered, by %s", name)
	}
	if got := w.answers(t, localPod, 2); got[farPod] != 2 {
		t.Errorf("new connections go to %v", got)
	}
}

// Virtual services of other programs are as they were, also where a Service should have one: it is named.
func TestIPVSLeavesOthersAlone(t *testing.T) {
	w := newHolding(t, inet.IPv4)
	other := kernel.Service{ID: kernel.ID{Addr: w.office, Protocol: inet.TCP, Port: 443}, Scheduler: "wlc"}
	check(t, w.ipvs.conn.Do(kernel.Op{Kind: kernel.AddService, Service: other}))
	w.apply(t, w.holding(program.Schedule{}, 0, ownPod, farPod))
	w.answers(t, localPod, 2)
	w.apply(t, w.holding(program.Schedule{}, 0))
	list, err := w.ipvs.conn.List()
	check(t, err)
	if len(list) != 1 || list[0].Service != other {
		t.Errorf("after all Services went the kernel has %+v", list)
	}
}

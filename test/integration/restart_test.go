// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
)

func TestKilledAgentLeavesItsRulesAndTheNextOneWritesNothing(t *testing.T) {
	for _, wiring := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(wiring), func(t *testing.T) {
			w := newSmallWorld(t, wiring)
			same := examples()[0]
			w.createPolicy(w.example(same.name))
			first := w.agent("node1").ready()
			w.becomes("ready", same.open)
			first.Kill()
			w.stays("the agent was killed")

			table, generation := w.table("node1"), w.generation("node1")
			s := w.stream()
			second := w.agent("node1").ready()
			s.goOn(100)
			s.stop()
			if now := w.generation("node1"); now != generation {
				t.Errorf("the next agent committed %d transactions, want none; the table was\n%s\nand is\n%s",
					now-generation, table, w.table("node1"))
			}
			if status := second.status(); status.DriftRepairs != 0 || status.IsolatedPods != 2 {
				t.Errorf("the next agent says %d repairs and %d isolated pods, want none and 2", status.DriftRepairs, status.IsolatedPods)
			}
			w.stays("the next agent is ready")
		})
	}
}

func TestNextAgentLearnsWhatChangedWhileNoneRan(t *testing.T) {
	w := newSmallWorld(t, lab.Bridge)
	same, deny := examples()[0], examples()[1]
	w.createPolicy(w.example(same.name))
	first := w.agent("node1").ready()
	w.becomes("ready", same.open)
	first.Kill()

	w.editPolicy("nsa/npa", func(s *networkingv1.NetworkPolicySpec) { s.Ingress = nil })
	w.stays("a change while no agent runs")
	drops := w.drops()
	w.agent("node1").ready()
	w.now = deny.open
	w.stays("the next agent is ready")
	if now := w.drops(); now < drops {
		t.Errorf("the drop counters went back from %d to %d: the table was made anew", drops, now)
	}
}

// stream sends packets without a pause: some that must never arrive, and some
// that always must.
type stream struct {
	w            *world
	stopping     context.CancelFunc
	running      sync.WaitGroup
	turned       chan struct{} // receives after each turn, if somebody waits
	deny, permit []uint32
	err          error
}

func (w *world) stream() *stream {
	w.t.Helper()
	s := newStream(w)
	to := w.bed.Pod(key("nsa/a1")).Addrs
	s.start(func() error { return s.turn(to) })
	return s
}

func newStream(w *world) *stream { return &stream{w: w, turned: make(chan struct{})} }

// start takes turns until stop is called.
func (s *stream) start(turn func() error) {
	ctx, cancel := context.WithCancel(s.w.t.Context())
	s.stopping = cancel
	s.running.Go(func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for s.err == nil {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s.err = turn()
			select {
			case s.turned <- struct{}{}:
			default:
			}
		}
	})
}

// turn sends one packet of each kind to each address.
func (s *stream) turn(to []netip.Addr) error {
	port := s.w.nextPort()
	for _, dst := range to {
		p := probe.Probe{Proto: packet.TCP, Dst: dst, SrcPort: port, DstPort: 80}
		deny, permit := p, p
		deny.ID, deny.From = s.w.prober.NextID(), "nsb/b1"
		permit.ID, permit.From = s.w.prober.NextID(), "nsa/a2"
		s.deny, s.permit = append(s.deny, deny.ID), append(s.permit, permit.ID)
		if err := s.w.prober.Send([]probe.Probe{deny, permit}); err != nil {
			return err
		}
	}
	return nil
}

// goOn returns after some more turns.
func (s *stream) goOn(turns int) {
	s.w.t.Helper()
	for range turns {
		select {
		case <-s.turned:
		case <-time.After(patience):
			s.w.t.Fatal("the stream of packets stands still")
		}
	}
}

// stop ends the stream and judges it.
func (s *stream) stop() {
	s.w.t.Helper()
	s.stopping()
	s.running.Wait()
	if s.err != nil {
		s.w.t.Fatal(s.err)
	}
	out, err := s.w.prober.Collect(s.w.t.Context(), s.permit, nil, time.Now().Add(2*time.Second))
	if err != nil {
		s.w.t.Fatal(err)
	}
	if len(out.Missing) > 0 {
		s.w.t.Errorf("%d of %d packets that are allowed did not arrive", len(out.Missing), len(s.permit))
	}
	leaks := 0
	for _, id := range s.deny {
		leaks += len(s.w.prober.Arrived(id))
	}
	if leaks > 0 {
		s.w.t.Errorf("%d of %d packets that are denied arrived", leaks, len(s.deny))
	}
	s.w.t.Logf("%d packets that are denied, %d that are allowed", len(s.deny), len(s.permit))
}

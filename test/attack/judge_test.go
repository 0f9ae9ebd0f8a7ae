// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/nft"
	"github.com/podwall/podwall/internal/trial"
)

// drops are packets dropped, by counter, all nodes together; only counters that
// moved.
type drops map[string]uint64

// reach reports whether every counter is as far as wanted.
func (d drops) reach(want drops) bool {
	for name, n := range want {
		if d[name] < n {
			return false
		}
	}
	return true
}

// quiet leaves out what the bed does by itself: a node's bridge reports the
// multicast groups that it listens to, from no address, a few times when it is
// young. On a bridge with a pod that may not speak these are drops too.
func (w *world) quiet(want, moved drops) drops {
	if extra := moved[nft.CounterSource] - want[nft.CounterSource]; w.wiring == lab.Bridge && extra <= 3 {
		delete(moved, nft.CounterSource)
		if n, wanted := want[nft.CounterSource]; wanted {
			moved[nft.CounterSource] = n
		}
	}
	return moved
}

// counters reads the drop counters of all nodes. The self-test's is not one of
// those that packets of pods move.
func (w *world) counters(t *testing.T) drops {
	t.Helper()
	total := drops{}
	for _, c := range w.conns {
		list, err := c.Counters()
		check(t, err)
		for name, n := range list {
			if name != nft.CounterSelfTest {
				total[name] += n
			}
		}
	}
	return total
}

// since returns how far the counters moved.
func (w *world) since(t *testing.T, before drops) drops {
	t.Helper()
	moved := drops{}
	for name, n := range w.counters(t) {
		if n != before[name] {
			moved[name] = n - before[name]
		}
	}
	return moved
}

// ask makes a question about the first packet of a connection.
func (w *world) ask(t *testing.T, from, to string, v6 bool, proto packet.Protocol, port uint16) trial.Question {
	t.Helper()
	return trial.Question{From: from, To: to, Dst: w.addr(t, to, v6), Proto: proto, Port: port}
}

// allowed wants every packet to arrive and to be answered.
func (w *world) allowed(t *testing.T, list ...trial.Question) {
	t.Helper()
	answers, err := w.Probe(t.Context(), list)
	check(t, err)
	for i, a := range answers {
		if a.Verdict != trial.Allowed || a.Problem != "" {
			t.Errorf("%s: got %s %s, want allowed", list[i], a.Verdict, a.Problem)
		}
	}
}

// denied wants every packet to be dropped and to be counted by that counter and
// no other.
func (w *world) denied(t *testing.T, counter string, list ...trial.Question) {
	t.Helper()
	before := w.counters(t)
	answers, err := w.Probe(t.Context(), list)
	check(t, err)
	sent := 0
	for i, a := range answers {
		sent += a.Packets
		if a.Verdict != trial.Denied {
			t.Errorf("%s: got %s %s, want denied", list[i], a.Verdict, a.Problem)
		}
	}
	want := drops{counter: uint64(sent)}
	if diff := cmp.Diff(want, w.quiet(want, w.since(t, before))); diff != "" && !t.Failed() {
		t.Errorf("%s and so on: counters moved (-want +got):\n%s", list[0], diff)
	}
}

// shot is a packet that no ordinary socket would send.
type shot struct {
	name string
	to   string // where it must or must not be seen
	mark []byte // its payload, found nowhere else
	send func() error
}

const (
	// patience is how long something that must happen may take.
	patience = 2 * time.Second
	// grace is how long nothing must happen where no counter tells.
	grace = 50 * time.Millisecond
)

// stopped sends the shots and wants none of them to arrive, and each to be
// counted as want says.
func (w *world) stopped(t *testing.T, want drops, shots ...shot) {
	t.Helper()
	before := w.counters(t)
	fire(t, shots)
	moved := drops{}
	if len(want) == 0 {
		time.Sleep(grace) // nothing tells that they are lost
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if moved = w.since(t, before); moved.reach(want) {
			break
		}
	}
	for _, s := range shots {
		if w.taps[s.to].saw(t, s.mark) {
			t.Errorf("%s arrived at %s", s.name, s.to)
		}
	}
	if diff := cmp.Diff(want, w.quiet(want, moved)); diff != "" {
		t.Errorf("%d packets as %s: counters moved (-want +got):\n%s", len(shots), shots[0].name, diff)
	}
}

// arrive sends the shots and wants each to arrive.
func (w *world) arrive(t *testing.T, shots ...shot) {
	t.Helper()
	fire(t, shots)
	for _, s := range shots {
		if !w.taps[s.to].await(t, s.mark) {
			t.Errorf("%s did not arrive at %s", s.name, s.to)
		}
	}
}

func fire(t *testing.T, shots []shot) {
	t.Helper()
	for _, s := range shots {
		if err := s.send(); err != nil {
			t.Fatalf("sending %s: %v", s.name, err)
		}
	}
}

// raw is a shot through the routes of the sender. The packet gets the mark as
// its payload.
func (w *world) raw(t *testing.T, name, from, to string, p packet.Packet) shot {
	t.Helper()
	if !p.Src.IsValid() {
		p.Src = w.addr(t, from, p.Dst.Is6())
	}
	p.Payload = mark()
	return w.bytes(name, from, to, p, p.Bytes())
}

// bytes is a shot of bytes that the test made, with the mark of p inside.
func (w *world) bytes(name, from, to string, p packet.Packet, b []byte) shot {
	return shot{name: name + " from " + from, to: to, mark: p.Payload,
		send: func() error { return w.Prober().SendPacket(from, p.Dst, b) }}
}

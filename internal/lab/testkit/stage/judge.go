// SPDX-License-Identifier: Apache-2.0

//go:build linux

package stage

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

const (
	// Patience is how long something that must happen may take on a busy machine.
	// Nobody waits so long when all is well.
	Patience = time.Minute
	// usualSettle is how long a packet may take that the counters seem to account for,
	// unless SettleVariable says otherwise.
	usualSettle = 20 * time.Millisecond
	// Grace is how long nothing must happen where no counter tells.
	Grace = 50 * time.Millisecond
)

// Drops are packets dropped, by counter, all nodes together; only counters that
// moved.
type Drops map[string]uint64

// Reach reports whether every counter is as far as wanted.
func (d Drops) Reach(want Drops) bool {
	for name, n := range want {
		if d[name] < n {
			return false
		}
	}
	return true
}

// Quiet leaves out of the moved counters what the bed does by itself: a node's
// bridge reports the multicast groups that it listens to, from no address, a few
// times when it is young. On a bridge with a pod that may not speak these are
// drops too.
func (w *World) Quiet(want, moved Drops) Drops {
	if extra := moved[ruleset.CounterSpoofed] - want[ruleset.CounterSpoofed]; w.Wiring == lab.Bridge && extra <= 3 {
		delete(moved, ruleset.CounterSpoofed)
		if n, wanted := want[ruleset.CounterSpoofed]; wanted {
			moved[ruleset.CounterSpoofed] = n
		}
	}
	return moved
}

// Counters reads the drop counters of all nodes. The self-test's is not one of
// those that packets of pods move.
func (w *World) Counters(t *testing.T) Drops {
	t.Helper()
	total := Drops{}
	for _, c := range w.Conns {
		list, err := ruleset.Counters(c)
		Check(t, err)
		for name, n := range list {
			if name != ruleset.CounterSelfTest {
				total[name] += n
			}
		}
	}
	return total
}

// Since returns how far the counters moved.
func (w *World) Since(t *testing.T, before Drops) Drops {
	t.Helper()
	moved := Drops{}
	for name, n := range w.Counters(t) {
		if n != before[name] {
			moved[name] = n - before[name]
		}
	}
	return moved
}

// Moved waits until the counters moved as wanted and fails the test unless they
// moved exactly so. Wanting nothing, it looks once.
func (w *World) Moved(t *testing.T, what string, before, want Drops) {
	t.Helper()
	var moved Drops
	Becomes(func() bool {
		moved = w.Since(t, before)
		return moved.Reach(want)
	})
	if diff := cmp.Diff(want, w.Quiet(want, moved)); diff != "" {
		t.Errorf("%s: counters moved (-want +got):\n%s", what, diff)
	}
}

// Ask makes a question about the first packet of a connection.
func (w *World) Ask(t *testing.T, from, to string, v6 bool, proto packet.Protocol, port uint16) trial.Question {
	t.Helper()
	return trial.Question{From: from, To: to, Dst: w.Addr(t, to, v6), Proto: proto, Port: port}
}

// Allowed wants every packet to arrive and to be answered.
func (w *World) Allowed(t *testing.T, list ...trial.Question) {
	t.Helper()
	answers, err := w.Probe(t.Context(), list)
	Check(t, err)
	for i, a := range answers {
		if a.Verdict != trial.Allowed || a.Problem != "" {
			t.Errorf("%s: got %s %s, want allowed", list[i], a.Verdict, a.Problem)
		}
	}
}

// Denied wants every packet to be dropped and to be counted by that counter and
// no other.
func (w *World) Denied(t *testing.T, counter string, list ...trial.Question) {
	t.Helper()
	before := w.Counters(t)
	answers, err := w.Probe(t.Context(), list)
	Check(t, err)
	sent := 0
	for i, a := range answers {
		sent += a.Packets
		if a.Verdict != trial.Denied {
			t.Errorf("%s: got %s %s, want denied", list[i], a.Verdict, a.Problem)
		}
	}
	want := Drops{counter: uint64(sent)}
	if diff := cmp.Diff(want, w.Quiet(want, w.Since(t, before))); diff != "" && !t.Failed() {
		t.Errorf("%s and so on: counters moved (-want +got):\n%s", list[0], diff)
	}
}

// One sends a probe that must arrive, and says where it did.
func (w *World) One(t *testing.T, p probe.Probe) probe.Arrival {
	t.Helper()
	p.ID = w.Prober().NextID()
	Check(t, w.Prober().Send([]probe.Probe{p}))
	_, err := w.Prober().Collect(t.Context(), []uint32{p.ID}, nil, time.Now().Add(Patience))
	Check(t, err)
	list := w.Prober().Arrived(p.ID)
	if len(list) == 0 {
		t.Fatalf("%s from %s to %s:%d did not arrive", p.Proto, p.From, p.Dst, p.DstPort)
	}
	return list[0]
}

// Shot is a packet that no ordinary socket would send.
type Shot struct {
	Name string
	To   string // where it must or must not be seen
	Mark []byte // its payload, found nowhere else
	Send func() error
}

// Stopped sends the shots and wants none of them to arrive, and each to be
// counted as want says.
func (w *World) Stopped(t *testing.T, want Drops, shots ...Shot) {
	t.Helper()
	before := w.Counters(t)
	Fire(t, shots)
	moved := Drops{}
	if len(want) == 0 {
		time.Sleep(Grace) // nothing tells that they are lost
	}
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if moved = w.Since(t, before); moved.Reach(want) {
			break
		}
	}
	for _, s := range shots {
		if w.Taps[s.To].Saw(t, s.Mark) {
			t.Errorf("%s arrived at %s", s.Name, s.To)
		}
	}
	if diff := cmp.Diff(want, w.Quiet(want, moved)); diff != "" {
		name := "nothing"
		if len(shots) > 0 {
			name = shots[0].Name
		}
		t.Errorf("%d packets as %s: counters moved (-want +got):\n%s", len(shots), name, diff)
	}
}

// Arrive sends the shots and wants each to arrive.
func (w *World) Arrive(t *testing.T, shots ...Shot) {
	t.Helper()
	Fire(t, shots)
	for _, s := range shots {
		if !w.Taps[s.To].Await(t, s.Mark) {
			t.Errorf("%s did not arrive at %s", s.Name, s.To)
		}
	}
}

// Fire sends the shots and wants nothing.
func Fire(t *testing.T, shots []Shot) {
	t.Helper()
	for _, s := range shots {
		if err := s.Send(); err != nil {
			t.Fatalf("sending %s: %v", s.Name, err)
		}
	}
}

// Raw is a shot through the routes of the sender. The packet gets the mark as
// its payload, and unless it has a source the sender's.
func (w *World) Raw(t *testing.T, name, from, to string, p packet.Packet) Shot {
	t.Helper()
	if !p.Src.IsValid() {
		p.Src = w.Addr(t, from, p.Dst.Is6())
	}
	p.Payload = w.Marks.Next()
	return w.Bytes(name, from, to, p.Dst, p.Payload, p.Bytes())
}

// Bytes is a shot of a whole IP packet that the test made, with the mark inside.
func (w *World) Bytes(name, from, to string, dst netip.Addr, mark, b []byte) Shot {
	return Shot{Name: name + " from " + from, To: to, Mark: mark,
		Send: func() error { return w.Prober().SendPacket(from, dst, b) }}
}

// Hairpin lets a bridge send a frame back to the pod that it came from. A bridge
// that shows its packets to the IP hooks translates the destination by itself
// and needs that; the kubelet's network plugins set it (hairpinMode).
func (w *World) Hairpin(t *testing.T, pod string) {
	t.Helper()
	if w.Wiring != lab.Bridge {
		return
	}
	e := w.Endpoint(t, pod)
	h := w.Handle(t, e.Node)
	link, err := h.LinkByName(e.HostDevice)
	Check(t, err)
	Check(t, h.LinkSetHairpin(link, true))
}

// Forget removes the neighbours that an endpoint has learned, and returns how
// many these were.
func (w *World) Forget(t *testing.T, name string) (removed int) {
	t.Helper()
	h := w.Handle(t, name)
	list, err := h.NeighList(0, netlink.FAMILY_ALL)
	Check(t, err)
	for _, n := range list {
		if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 && len(n.HardwareAddr) == 6 &&
			n.Family != unix.AF_BRIDGE {
			Check(t, h.NeighDel(&n))
			removed++
		}
	}
	return removed
}

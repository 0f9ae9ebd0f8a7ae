// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// flow is a question: does the first packet of this connection arrive?
type flow struct {
	from, to *lab.Endpoint
	dst      netip.Addr
	proto    packet.Protocol
	port     uint16
}

// String returns one line for people.
func (f flow) String() string {
	return fmt.Sprintf("%s → %s (%s) %s:%d", f.from.Name, f.to.Name, f.dst, f.proto, f.port)
}

// is reports whether the flow asks for a port.
func (f flow) is(proto packet.Protocol, port uint16) bool { return f.proto == proto && f.port == port }

// fromOwnNode flows are allowed whatever policies say: a kubelet probes so.
func (f flow) fromOwnNode() bool {
	return f.from.Kind == lab.NodeEndpoint && f.to.Node == f.from.Node
}

// in reports whether an endpoint is a pod of a namespace.
func in(e *lab.Endpoint, namespace string) bool {
	return e.Kind == lab.PodEndpoint && strings.HasPrefix(e.Name, namespace+"/")
}

// services are the ports that the examples speak about, and one they do not.
func services() []flow {
	return []flow{{proto: packet.TCP, port: 80}, {proto: packet.TCP, port: 5978}, {proto: packet.TCP, port: 6379}, {proto: packet.UDP, port: 53}}
}

// ask makes the rounds ask about every pair of endpoints of which one is a pod.
func (w *world) ask() {
	w.flows = nil
	for _, from := range w.bed.Endpoints() {
		for _, to := range w.bed.Endpoints() {
			if from == to || from.Name == serverName || to.Name == serverName ||
				from.Kind != lab.PodEndpoint && to.Kind != lab.PodEndpoint {
				continue
			}
			for _, dst := range to.Addrs {
				for _, s := range services() {
					w.flows = append(w.flows, flow{from, to, dst, s.proto, s.port})
				}
			}
		}
	}
}

// verdict is what the packets said.
type verdict string

// The verdicts. Unclear means that a packet was lost without a trace.
const (
	unclear verdict = "unclear"
	allowed verdict = "allowed"
	denied  verdict = "denied"
)

func verdictOf(ok bool) verdict {
	if ok {
		return allowed
	}
	return denied
}

// round sends one packet for each flow. It is allowed if it arrived, and
// denied if it did not and the drop counters account for exactly what is
// missing. Rounds have source ports of their own, so that no packet meets the
// connection of an earlier one.
func (w *world) round() ([]verdict, []uint32) {
	w.t.Helper()
	before := w.drops()
	batch, ids := w.batch()
	if err := w.prober.Send(batch); err != nil {
		w.t.Fatal(err)
	}
	moved := func() (uint64, error) {
		now, err := w.countDrops()
		return now - before, err
	}
	out, err := w.prober.Collect(w.t.Context(), ids, moved, time.Now().Add(slowly(2*time.Second)))
	if err != nil {
		w.t.Fatal(err)
	}
	lost, err := w.prober.Lost()
	if err != nil {
		w.t.Fatal(err)
	}
	missing := map[uint32]bool{}
	for _, id := range out.Missing {
		missing[id] = true
	}
	verdicts := make([]verdict, len(ids))
	for i, id := range ids {
		switch {
		case !missing[id]:
			verdicts[i] = allowed
			w.arrivedRight(w.flows[i], id)
		case out.Exact && lost == 0:
			verdicts[i] = denied
		default:
			verdicts[i] = unclear
		}
	}
	return verdicts, ids
}

func (w *world) batch() (batch []probe.Probe, ids []uint32) {
	var port uint16 // 0: the prober takes another one for each packet
	if !w.mixed {
		port = w.nextPort()
	}
	for _, f := range w.flows {
		id := w.prober.NextID()
		ids = append(ids, id)
		batch = append(batch, probe.Probe{ID: id, Proto: f.proto, From: f.from.Name, Dst: f.dst, SrcPort: port, DstPort: f.port})
	}
	return batch, ids
}

// nextPort returns a source port that was not used before; tests do not use
// all of them.
// nextPort may be called by streams, too.
func (w *world) nextPort() uint16 { return 20000 + uint16(w.port.Add(1)) }

func (w *world) arrivedRight(f flow, id uint32) {
	w.t.Helper()
	for _, a := range w.prober.Arrived(id) {
		if a.Endpoint != f.to.Name {
			w.t.Errorf("%s: arrived at %s", f, a.Endpoint)
		}
		if w.look != nil {
			w.look(f, a)
		}
	}
}

func (w *world) drops() uint64 {
	w.t.Helper()
	n, err := w.countDrops()
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// countDrops sums what all nodes have dropped.
func (w *world) countDrops() (uint64, error) {
	var sum uint64
	for _, conn := range w.tables {
		counters, err := ruleset.Counters(conn)
		if err != nil {
			return 0, err
		}
		for _, name := range []string{ruleset.CounterIngress, ruleset.CounterEgress, ruleset.CounterUnknownPod, ruleset.CounterSpoofed,
			ruleset.CounterBroadcast, ruleset.CounterInvalid} {
			sum += counters[name]
		}
	}
	return sum, nil
}

// becomes waits until every flow has the verdict that is wanted, and wants it
// to stay so. On the way only those may change whose verdict is another than
// before: a change of one pod or policy is not felt by the others.
func (w *world) becomes(what string, want func(flow) bool) {
	w.t.Helper()
	start := time.Now()
	for rounds := 1; ; rounds++ {
		wrong, _ := w.step(what, want)
		if len(wrong) == 0 {
			w.t.Logf("%s: enforced after %d rounds, %v", what, rounds, time.Since(start).Round(time.Millisecond))
			break
		}
		if time.Since(start) > patience {
			w.t.Fatalf("%s: not enforced after %s:\n\t%s", what, patience, list(wrong))
		}
	}
	w.now = want
	w.stays(what)
}

// stays wants every flow to have its verdict now, and what arrives to be
// answered: a policy that allows a connection allows its way back.
func (w *world) stays(what string) {
	w.t.Helper()
	var wrong []string
	var arrived []uint32
	for range 3 { // a packet may be lost on a busy machine
		if wrong, arrived = w.step(what, w.now); len(wrong) == 0 {
			break
		}
	}
	if len(wrong) > 0 {
		w.t.Fatalf("%s:\n\t%s", what, list(wrong))
	}
	if silent := w.prober.WaitReplies(w.t.Context(), arrived, time.Now().Add(slowly(2*time.Second))); len(silent) > 0 {
		w.t.Errorf("%s: %d of %d packets that arrived were not answered", what, len(silent), len(arrived))
	}
}

// step asks once and returns what is not as it is wanted, and the numbers of
// the packets that arrived. It ends the test if a flow has changed whose
// verdict is to be the same as before.
func (w *world) step(what string, want func(flow) bool) (wrong []string, arrived []uint32) {
	w.t.Helper()
	verdicts, ids := w.round()
	var felt []string
	for i, f := range w.flows {
		is, got := verdictOf(want(f)), verdicts[i]
		if got == allowed {
			arrived = append(arrived, ids[i])
		}
		if got == is {
			continue
		}
		text := fmt.Sprintf("%s is %s, want %s", f, got, is)
		wrong = append(wrong, text)
		if got != unclear && is == verdictOf(w.now(f)) {
			felt = append(felt, text)
		}
	}
	if len(felt) > 0 {
		w.t.Fatalf("%s: flows that must be as before:\n\t%s", what, list(felt))
	}
	return wrong, arrived
}

// list joins some lines of many.
func list(lines []string) string {
	const most = 12
	if len(lines) > most {
		lines = append(lines[:most:most], fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n\t")
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Question asks whether the first packet of a connection gets through.
type Question struct {
	From string // an endpoint of the bed
	// To is the endpoint where it must arrive. Empty means any, for the address
	// of a Service.
	To    string
	Src   netip.Addr // unset: the first address of the family of Dst
	Dst   netip.Addr
	Proto packet.Protocol
	Port  uint16 // not for ICMP
}

// String returns one line for people.
func (q Question) String() string {
	to := q.To
	if to == "" {
		to = q.Dst.String()
	}
	return fmt.Sprintf("%s → %s %s:%d", q.From, to, q.Proto, q.Port)
}

// Verdict is what the packets said. The zero value is that they said nothing.
type Verdict uint8

// The verdicts.
const (
	Unknown Verdict = iota
	Denied
	Allowed
)

// String returns the mark of a matrix: 1, 0 or ?.
func (v Verdict) String() string {
	switch v {
	case Denied:
		return "0"
	case Allowed:
		return "1"
	}
	return "?"
}

// Answer is what became of a question.
type Answer struct {
	Verdict Verdict
	// Packets is how many were sent for it. None for an endpoint that asks for
	// itself: such a packet never leaves its namespace, so nobody can stop it
	// and the answer is Allowed.
	Packets int
	// Problem says what was not as it should be although there is a verdict, or
	// why there is none.
	Problem string
}

// Totals count packets since the trial began.
type Totals struct {
	Sent, Arrived int
	Dropped       uint64 // as our counters say
}

// Totals returns the packets sent so far and what became of them.
func (t *Trial) Totals() Totals { return t.totals }

const (
	// lost is after how long a packet counts as lost that neither arrived nor was
	// counted as dropped. A verdict is never made from it. Each packet of a round
	// adds to it, since slow machines need time for many.
	lost, each = 5 * time.Second, 10 * time.Millisecond
	// maxAlone bounds how many questions are asked again one by one.
	maxAlone = 64

	firstPort, ports = 20000, 40000
)

// Probe sends all questions at once and answers each: Allowed when the packet
// arrived at its destination, Denied when it did not and the drop counters of
// all nodes together account for exactly the packets that are missing. If they
// do not, what is missing is asked once more together and then one by one;
// what stays unaccounted for is Unknown. So is what arrived without an answer:
// on a busy machine a kernel may leave one out.
func (t *Trial) Probe(ctx context.Context, questions []Question) ([]Answer, error) {
	answers := make([]Answer, len(questions))
	var open []int
	for i, q := range questions {
		if q.From == q.To {
			answers[i].Verdict = Allowed
			continue
		}
		open = append(open, i)
	}
	var err error
	for try := 0; try < 2 && len(open) > 0 && err == nil; try++ {
		open, err = t.ask(ctx, questions, answers, open)
	}
	if len(open) > 1 {
		for _, i := range open[:min(maxAlone, len(open))] {
			if err == nil {
				_, err = t.ask(ctx, questions, answers, []int{i})
			}
		}
	}
	return answers, err
}

// ask sends one round and returns what is still open.
func (t *Trial) ask(ctx context.Context, questions []Question, answers []Answer, list []int) (open []int, err error) {
	r := t.newRound(questions, list)
	out, err := t.send(ctx, r)
	if err != nil {
		return nil, err
	}
	missing := map[uint32]bool{}
	for _, id := range out.Missing {
		missing[id] = true
	}
	for n, i := range list {
		a := &answers[i]
		a.Packets++
		switch {
		case !missing[r.ids[n]]:
			a.Verdict, a.Problem = t.arrival(questions[i], r.ids[n])
		case out.Exact:
			a.Verdict, a.Problem = Denied, ""
		default:
			a.Problem = fmt.Sprintf("not seen, and of %d packets sent %d arrived and %d were counted as dropped",
				len(list), out.Arrived, out.Dropped)
			open = append(open, i)
		}
	}
	silent, err := t.checkReplies(ctx, questions, answers, r)
	return append(open, silent...), err
}

// round is one packet for each question of a list of indexes.
type round struct {
	list  []int
	ids   []uint32
	batch []probe.Probe
}

// newRound gives all probes of a round the same source port and every round
// another one, so that no packet ever meets the connection of an earlier one.
func (t *Trial) newRound(questions []Question, list []int) round {
	t.rounds = (t.rounds + 1) % ports
	r := round{list: list}
	for _, i := range list {
		q, id := questions[i], t.prober.NextID()
		r.ids = append(r.ids, id)
		r.batch = append(r.batch, probe.Probe{ID: id, Proto: q.Proto, From: q.From, Src: q.Src, Dst: q.Dst,
			SrcPort: firstPort + t.rounds, DstPort: q.Port})
	}
	return r
}

// deadline is when what is still missing of so many packets counts as lost.
func deadline(packets int) time.Time { return time.Now().Add(lost + time.Duration(packets)*each) }

// send sends a round and waits until every packet is accounted for.
func (t *Trial) send(ctx context.Context, r round) (probe.Outcome, error) {
	t.prober.Reset()
	before, err := t.Drops()
	if err != nil {
		return probe.Outcome{}, err
	}
	if err := t.prober.Send(r.batch); err != nil {
		return probe.Outcome{}, err
	}
	moved := func() (uint64, error) {
		now, err := t.Drops()
		return now - before, err
	}
	out, err := t.prober.Collect(ctx, r.ids, moved, deadline(len(r.ids)))
	if err != nil {
		return out, err
	}
	t.totals.Sent += len(r.ids)
	t.totals.Arrived += out.Arrived
	t.totals.Dropped += out.Dropped
	unseen, err := t.prober.Lost()
	// An arrival that the prober could not see must not pass for a drop.
	out.Exact = out.Exact && unseen == 0
	return out, err
}

func (t *Trial) arrival(q Question, id uint32) (Verdict, string) {
	for _, at := range t.prober.Arrived(id) {
		if q.To != "" && at.Endpoint != q.To {
			return Unknown, "arrived at " + at.Endpoint
		}
	}
	return Allowed, ""
}

// checkReplies notes which packets arrived and were not answered: a policy that
// allows a connection allows its way back. It returns those that may be asked
// again; not if an agent dropped something meanwhile, which may be an answer.
func (t *Trial) checkReplies(ctx context.Context, questions []Question, answers []Answer, r round) ([]int, error) {
	owner := map[uint32]int{}
	var wait []uint32
	for n, i := range r.list {
		// A node does not answer SCTP while the prober watches it.
		if q := questions[i]; answers[i].Verdict == Allowed && (q.Proto != packet.SCTP || !t.isNode(q.To)) {
			wait, owner[r.ids[n]] = append(wait, r.ids[n]), i
		}
	}
	before, err := t.Drops()
	if err != nil {
		return nil, err
	}
	var silent []int
	for _, id := range t.prober.WaitReplies(ctx, wait, deadline(len(wait))) {
		answers[owner[id]].Problem = "arrived, but no answer came back"
		silent = append(silent, owner[id])
	}
	if now, err := t.Drops(); err != nil || now != before {
		return nil, err
	}
	return silent, nil
}

func (t *Trial) isNode(name string) bool {
	return slices.ContainsFunc(t.nodes, func(n *node) bool { return n.name == name })
}

// Drops returns how many packets all nodes together have dropped.
func (t *Trial) Drops() (uint64, error) {
	var sum uint64
	for _, n := range t.nodes {
		counters, err := ruleset.Counters(n.counters)
		if err != nil {
			return 0, fmt.Errorf("on node %s: %w", n.name, err)
		}
		for _, name := range []string{ruleset.CounterIngress, ruleset.CounterEgress, ruleset.CounterUnknownPod,
			ruleset.CounterSpoofed,
			ruleset.CounterBroadcast, ruleset.CounterSpoofedFrame, ruleset.CounterInvalid} {
			sum += counters[name]
		}
	}
	return sum, nil
}

// address returns the endpoint's first address of a family.
func address(e *lab.Endpoint, v4 bool) netip.Addr {
	for _, a := range e.Addrs {
		if a.Is4() == v4 {
			return a
		}
	}
	return netip.Addr{}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// score is what a series of starts came to.
type score struct {
	starts    int
	before    int    // packets that came in before a container could run
	after     int    // ... and after
	friends   int    // packets of the friend, who is allowed
	overheard int    // frames for others that a bridge flooded to the pod
	flood     uint64 // packets towards pods
	said      uint64 // packets of pods
	dropped   uint64
	heard     int // packets of the pods that arrived somewhere
	added     []time.Duration
	plain     []time.Duration
	waited    []time.Duration // from the end of ADD until no connection from before it was left
	windows   []time.Duration // when what came in did, after a container could run
	cleared   []time.Duration // from a route to the end of the connections from before it
	examples  []string
	early     []string // the same of what came in before a container could run
}

// judge counts what came into a pod, and what came from one.
func (f *flooded) judge(c *score, seen []sight, started time.Time, ips []netip.Addr, l life) {
	f.t.Helper()
	for _, s := range seen {
		switch {
		case s.others:
			c.overheard++
		case l.opens && f.ofFriend(s):
			c.friends++
		default:
			if c.windows = append(c.windows, s.at.Sub(started)); s.at.After(started) {
				c.after++
			} else {
				c.before++
			}
			c.example(ips, started, s, !s.at.After(started))
		}
	}
	for _, e := range f.eyes {
		for _, s := range e.drain(f.t) {
			if s.others || !slices.Contains(ips, s.src) || l.opens && slices.Contains(f.friend, s.dst) {
				continue
			}
			early := s.at.Before(started)
			if early { // an answer of the pod's kernel
				c.before++
			} else {
				c.heard++
			}
			c.example(ips, started, s, early)
		}
	}
}

func (c *score) example(ips []netip.Addr, started time.Time, s sight, early bool) {
	list := &c.examples
	if early {
		list = &c.early
	}
	if len(*list) < 8 {
		*list = append(*list, fmt.Sprintf("start %d, %v after ADD (%v): %s", c.starts, s.at.Sub(started), ips, s))
	}
}

// settle ends the flood and counts what was sent and dropped.
func (f *flooded) settle(c *score) {
	f.t.Helper()
	f.halt()
	check(f.t, f.err)
	for _, m := range f.mouths {
		c.flood += m.sent
	}
	c.dropped += f.drops()
}

// report prints one line and fails the test if something came through. What
// comes in before a container could run is let pass where early says so.
func (c *score) report(t *testing.T, what string, early bool) {
	t.Helper()
	t.Logf("%s: %d starts; %d packets towards pods, through before a container runs %d, after %d; of the friend %d; overheard %d; %d sent by pods, arrived %d; dropped %d%s",
		what, c.starts, c.flood, c.before, c.after, c.friends, c.overheard, c.said, c.heard, c.dropped, c.times())
	if c.flood == 0 || c.said == 0 {
		t.Error("nothing was sent")
	}
	if c.after > 0 || c.heard > 0 || c.before > 0 && !early {
		t.Errorf("packets came through: %q, before a container could run: %q", c.examples, c.early)
	}
}

// cleared returns how long connections from before a pod lasted after the agent
// had heard of the route to the pod, as it says in its log.
func (a *agent) cleared() (list []time.Duration) {
	a.t.Helper()
	for _, m := range regexp.MustCompile(`cut connections older than a pod.* after=(\S+)`).FindAllStringSubmatch(a.Log(), -1) {
		d, err := time.ParseDuration(m[1])
		check(a.t, err)
		list = append(list, d)
	}
	return list
}

// connections counts those that the addresses take part in.
func (f *flooded) connections(ips []netip.Addr) (n int) {
	f.t.Helper()
	check(f.t, f.tracked.Dump(0, func(e *inet.Connection) {
		if slices.Contains(ips, e.Orig.Src) || slices.Contains(ips, e.Reply.Src) {
			n++
		}
	}))
	return n
}

func (f *flooded) drops() (n uint64) {
	f.t.Helper()
	counters, err := ruleset.Counters(f.table)
	check(f.t, err)
	for _, name := range []string{ruleset.CounterIngress, ruleset.CounterEgress, ruleset.CounterUnknownPod, ruleset.CounterSpoofed,
		ruleset.CounterBroadcast, ruleset.CounterSpoofedFrame, ruleset.CounterInvalid} {
		n += counters[name]
	}
	return n
}

func (c *score) times() string {
	var more []time.Duration
	for i := range min(len(c.added), len(c.plain)) {
		more = append(more, c.added[i]-c.plain[i])
	}
	text := ""
	if len(c.cleared) > 0 {
		text = fmt.Sprintf("; %d routes with connections from before, which lasted %s, at most %s", len(c.cleared), spread(c.cleared), slices.Max(c.cleared).Round(10*time.Microsecond))
	}
	if len(c.waited) > 0 {
		text += fmt.Sprintf("; none were left %s after ADD, at most %s", spread(c.waited), slices.Max(c.waited).Round(10*time.Microsecond))
	}
	if len(c.windows) > 0 {
		text += fmt.Sprintf("; what came in came at most %s after a container could run", slices.Max(c.windows).Round(10*time.Microsecond))
	}
	return text + "; ADD with the gate " + spread(c.added) + ", without " + spread(c.plain) + ", difference " + spread(more)
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "-"
	}
	d = slices.Sorted(slices.Values(d))
	at := func(percent int) time.Duration { return d[(len(d)-1)*percent/100].Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %s p99 %s", at(50), at(99))
}

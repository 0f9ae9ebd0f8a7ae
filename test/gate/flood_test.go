// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// life is one pod's: it is added, sends at once, lives a little, and goes.
type life struct {
	gate   bool
	opens  bool                   // packets of the friend must arrive
	waits  bool                   // with the first packets, until no connection from before is left
	living func(ips []netip.Addr) // after the pod's first packets
}

func (f *flooded) live(c *score, l life) {
	t := f.t
	t.Helper()
	ns := shortLived(t)
	defer ns.Close() // the kernel removes it with the last socket
	e := openEye(t, ns)
	defer e.close()
	m := openMouth(t, "the pod", ns, nil)
	defer m.close()
	s := f.shopPod(ns)
	f.networks = f.plain
	if l.gate {
		f.networks = f.gated
	}
	ips, took, err := f.add(s)
	check(t, err)
	added := time.Now()
	if l.waits {
		f.await(func() bool { return f.connections(ips) == 0 })
		c.waited = append(c.waited, time.Since(added))
	}
	started := time.Now()
	m.src = ips
	f.first(m)
	if l.living != nil {
		l.living(ips)
	}
	var seen []sight
	if l.opens {
		f.await(func() bool {
			seen = append(seen, e.drain(t)...)
			return slices.ContainsFunc(seen, f.ofFriend)
		})
	}
	f.del(s)
	f.judge(c, append(seen, e.drain(t)...), started, ips, l)
	c.said += m.sent
	if c.starts++; l.gate {
		c.added = append(c.added, took)
	} else {
		c.plain = append(c.plain, took)
	}
}

// first is what an init container does: it sends as soon as it runs, to
// everybody, connections of its own and what looks like answers to the flood.
func (f *flooded) first(m *mouth) {
	f.t.Helper()
	for round := range 10 {
		for _, to := range f.targets {
			check(f.t, m.say(to, uint16(30000+round), initPort))
			check(f.t, m.say(to, floodPort, oldPort))
			check(f.t, m.say(to, floodPort, attackPort))
		}
		time.Sleep(3 * time.Millisecond) // the flood goes on
	}
}

func (f *flooded) ofFriend(s sight) bool { return slices.Contains(f.friend, s.src) && !s.others }

// routed is the plugin that makes a route to each pod.
const routed = "ptp"

// eachWiring runs a test on bridged pods and on routed ones. On the latter a
// packet to an address that is no pod's yet leaves by the default route, and the
// connection that it made would lead to the pod as soon as there is a route to it.
func eachWiring(t *testing.T, test func(t *testing.T, plugin string)) {
	for _, plugin := range []string{"bridge", routed} {
		t.Run(plugin, func(t *testing.T) { test(t, plugin) })
	}
}

// Starts with the plugin and without it take turns: the latter for the time they
// take. Their pods are unknown, thus closed.
func TestNothingPassesWhenPodsStartUnderAFlood(t *testing.T) {
	eachWiring(t, func(t *testing.T, plugin string) {
		f, c, without := newFlooded(t, plugin, "10s"), &score{}, &score{}
		n := soak.Times(10, 1000)
		f.company(2*n, false)
		f.flood()
		for i := range n {
			f.live(c, life{gate: true})
			if i < soak.Times(3, 200) {
				f.live(without, life{waits: true})
			}
		}
		f.settle(c)
		c.plain, without.flood = without.plain, c.flood
		c.report(t, "gate and agent, all denied", plugin == routed)
		without.report(t, "the same without the gate", plugin == routed)
	})
}

func TestOnlyTheFriendPassesWhenPodsStartUnderAFlood(t *testing.T) {
	eachWiring(t, func(t *testing.T, plugin string) {
		f, c := newFlooded(t, plugin, "10s"), &score{}
		n := soak.Times(3, 200)
		f.company(n, true)
		f.flood()
		for range n {
			f.live(c, life{gate: true, opens: true})
		}
		f.settle(c)
		c.report(t, "gate and agent, a friend allowed", plugin == routed)
	})
}

func TestNothingPassesWhenPodsStartUnderAFloodAndTheAgentIsKilled(t *testing.T) {
	eachWiring(t, func(t *testing.T, plugin string) {
		f, c := newFlooded(t, plugin, "100ms"), &score{}
		n := soak.Times(10, 1000)
		a := f.company(n, true)
		a.Kill()
		f.flood()
		for range n {
			f.live(c, life{gate: true})
		}
		f.settle(c)
		c.report(t, "gate, agent killed", plugin == routed)
	})
}

// Without the gate a pod is closed until the API names its address. The agent
// hears of a routed pod by its route, at the same time as the runtime. What comes
// in before it has ended the connections from before the pod is counted apart, as
// the time that takes is: a container that runs sooner would see it.
func TestNothingPassesBeforeAPodsAddressIsNamed(t *testing.T) {
	eachWiring(t, func(t *testing.T, plugin string) {
		f, c := newFlooded(t, plugin, "10s"), &score{}
		n := soak.Times(4, 200)
		a := f.company(n, true)
		f.flood()
		l := life{opens: true, waits: true}
		for i := range n {
			l.living = func(ips []netip.Addr) { f.announce(i, ips) }
			f.live(c, l)
			f.announce(-1, nil)
		}
		f.settle(c)
		if c.cleared = a.cleared(); plugin == routed && len(c.cleared) == 0 {
			t.Error("no connection from before a pod was ended when its route came")
		}
		c.report(t, "agent without gate", plugin == routed)
	})
}

// On a node that just booted the first pod is wired before there are rules.
// Until the plugin has loaded them packets come in, to nobody: no container runs.
func TestNothingPassesOnANodeThatJustBooted(t *testing.T) {
	eachWiring(t, func(t *testing.T, plugin string) {
		c := &score{}
		for i := range soak.Times(2, 100) {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				f := newFlooded(t, plugin, "100ms")
				f.flood()
				f.live(c, life{gate: true})
				f.live(c, life{gate: true})
				f.settle(c)
			})
		}
		c.report(t, "boot", true)
	})
}

// The same flood and the same pods where nothing closes them: so the others
// would see it if something came through.
func TestTheFloodIsSeenWhereUnknownPodsAreOpen(t *testing.T) {
	eachWiring(t, func(t *testing.T, plugin string) {
		f, c := newFlooded(t, plugin, "10s"), &score{}
		f.company(1, false, "--unknown-pods=open")
		f.flood()
		f.live(c, life{})
		f.settle(c)
		if c.after == 0 || c.heard == 0 {
			t.Errorf("of the flood %d packets came through to the pod, and %d of its own elsewhere, want many of both", c.after, c.heard)
		}
	})
}

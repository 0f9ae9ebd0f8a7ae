// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// attackPort is the attacker's source port: one connection of each protocol.
const attackPort = 21000

// A pod talks with another one, which goes away, and does not stop. The next pod
// with that address is isolated: it gets nothing of the connection, and what it
// sends back as if it were the last one arrives nowhere.
func TestAnAttackerKeepsNoConnectionToAnAddressThatIsUsedAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		killed bool // the agent, before the first pod goes
		life   life
	}{
		{"gate and agent", false, life{gate: true}},
		{"gate, agent killed", true, life{gate: true}},
		{"agent without gate", false, life{waits: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWiring(t, func(t *testing.T, plugin string) {
				timeout := "10s"
				if c.killed {
					timeout = "100ms"
				}
				f, s := newFlooded(t, plugin, timeout), &score{}
				f.reuse(s, c.killed, c.life)
				s.report(t, c.name, plugin == routed || c.killed)
			})
		})
	}
}

func (f *flooded) reuse(c *score, killed bool, l life) {
	t := f.t
	t.Helper()
	a := f.company(soak.Times(2, 30), false)
	f.span = [4]string{"10.88.0.40", "10.88.0.40", "fd00:88::28", "fd00:88::28"}
	f.gated, f.plain = f.list(true), f.list(false)
	f.networks = f.gated
	first := f.sandbox("s-first", "first", "first")
	first.conf.Args[1][1] = "evil" // where no policy is
	f.args = [][2]string{{"MAC", sameHardware}}
	first.conf.Args = append(first.conf.Args, f.args...)
	f.base = append(f.base, evil("first"))
	f.announce(-1, nil)
	ips := f.mustAdd(first)
	talk := openMouth(t, "the first pod", first.ns, ips)
	e := openEye(t, first.ns)
	attack := f.attack(ips)
	defer attack()
	var heard []sight
	f.await(func() bool { // until it has heard the attacker over both families, and answered
		for _, s := range e.drain(t) {
			if slices.Contains(f.attacker().src, s.src) && s.proto == packet.UDP {
				heard = append(heard, s)
				check(t, talk.say(s.src, floodPort, attackPort))
			}
		}
		return len(heard) > 20 && slices.ContainsFunc(heard, func(s sight) bool { return s.src.Is6() })
	})
	check(t, talk.close())
	check(t, e.close())
	if killed {
		a.Kill()
	}
	f.del(first)
	f.base = f.base[:len(f.base)-1]
	f.announce(-1, nil)
	if !killed {
		f.await(func() bool { return !f.knows(ips[0]) && !f.knows(ips[1]) })
	}
	time.Sleep(50 * time.Millisecond) // the attacker goes on: its packets find nobody
	for _, e := range f.eyes {
		e.drain(t)
	}
	for range soak.Times(2, 30) {
		f.live(c, l)
	}
	attack()
	check(t, f.err)
	c.flood, c.dropped = f.attacker().sent, f.drops()
}

func (f *flooded) attacker() *mouth { return f.mouths[1] } // the resident after the host outside

// attack sends to the addresses until it is ended, by the first call of what is
// returned.
func (f *flooded) attack(to []netip.Addr) (end func()) {
	f.t.Helper()
	if f.plugin == "bridge" {
		check(f.t, f.attacker().ns.Do(func() error { return pin(to) }))
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.running.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			for _, addr := range to {
				if err := f.attacker().say(addr, attackPort, floodPort); err != nil {
					f.err = err
					return
				}
			}
			<-tick.C
		}
	})
	return f.halt
}

// sameHardware is what both pods with the address have on a bridge: a pod may
// choose it.
const sameHardware = "02:00:00:00:00:28"

// pin makes packets to the addresses go there without asking on the bridge: the
// sender has no pause when an address has nobody, or another owner.
func pin(to []netip.Addr) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	hardware, err := net.ParseMAC(sameHardware)
	if err != nil {
		return err
	}
	for _, addr := range to {
		if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: hardware}); err != nil {
			return fmt.Errorf("pinning %s: %w", addr, err)
		}
	}
	return nil
}

// knows reports whether the kernel's table has a pod with that address.
func (f *flooded) knows(a netip.Addr) bool {
	f.t.Helper()
	table, err := f.table.Read()
	check(f.t, err)
	for _, s := range table.Sets {
		if s.Name == map[bool]string{true: "pod-ingress4", false: "pod-ingress6"}[a.Is4()] {
			for _, e := range s.Entries {
				if e.Key.Addr == a {
					return true
				}
			}
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// nodeWithAWire gives the node an address of each family and an uplink.
func nodeWithAWire(t *testing.T) (own, outside []netip.Addr) {
	t.Helper()
	run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
	for _, name := range []string{"lo", "eth0", "wire"} {
		run(t, "ip", "link", "set", name, "up")
	}
	for _, f := range [][2]string{{"192.168.7.2/24", "192.168.7.1"}, {"fd07::2/64", "fd07::1"}} {
		run(t, "ip", "addr", "add", f[0], "dev", "eth0", "nodad")
		run(t, "ip", "neigh", "add", f[1], "lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent")
		awaitLocal(t, netip.MustParsePrefix(f[0]).Addr())
		own, outside = append(own, netip.MustParsePrefix(f[0]).Addr()), append(outside, netip.MustParseAddr(f[1]))
	}
	return own, outside
}

// awaitLocal waits until the kernel takes an address for the node's own. An IPv6 address can be the source of a packet
// somewhat before.
func awaitLocal(t *testing.T, a netip.Addr) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if strings.HasPrefix(run(t, "ip", "route", "get", a.String()), "local ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the kernel does not take %s for the node's own", a)
		}
	}
}

// liars are pods with these addresses that may send nothing.
func liars(addrs []netip.Addr) *program.Program {
	p := &program.Program{}
	for _, a := range addrs {
		name := map[inet.Family]string{inet.IPv4: "egress4-liar", inet.IPv6: "egress6-liar"}[inet.FamilyOf(a)]
		p.Pods = append(p.Pods, program.Pod{Addr: a, Name: "x/liar", Egress: name})
		p.Chains = append(p.Chains, &program.Chain{Name: name, Direction: program.Egress, Family: inet.FamilyOf(a)})
	}
	slices.SortFunc(p.Pods, func(a, b program.Pod) int { return a.Addr.Compare(b.Addr) })
	return p
}

// older makes the rules those of a version that filtered the node like a pod.
func older(t *testing.T) {
	t.Helper()
	for _, f := range []string{"4", "6"} {
		rules := run(t, "nft", "-a", "list", "chain", "inet", "podwall", "egress"+f+"-liar")
		handle := regexp.MustCompile(`fib saddr type local return.*# handle (\d+)`).FindStringSubmatch(rules)
		if handle == nil {
			t.Fatalf("no rule for the node:\n%s", rules)
		}
		run(t, "nft", "delete", "rule", "inet", "podwall", "egress"+f+"-liar", "handle", handle[1])
	}
}

// A restarted agent must reach its API server although a pod claims the node's address and the rules of an
// earlier version filter it. Nothing else changes before the first sync.
func TestTheNodeIsReleasedFromTheRulesOfAnEarlierVersion(t *testing.T) {
	for name, filterHook := range map[string]bool{"nat": false, "filter": true} {
		t.Run(name, func(t *testing.T) { inOwnNamespace(t, func(t *testing.T) { released(t, filterHook) }) })
	}
}

func released(t *testing.T, filterHook bool) {
	own, outside := nodeWithAWire(t)
	pod := netip.MustParseAddr("10.9.9.9") // stays as it is
	o := Options{Options: decide.Options{FilterHook: filterHook, Guard: decide.GuardOn},
		Announced: func(netip.Addr) ([]string, bool) { return nil, true }}
	healthy(t, open(t, o), liars(append(own, pod)))
	for _, to := range outside {
		if err := send(t.Context(), to); err != nil {
			t.Errorf("by the rules of today the node does not reach %s: %v\n%s\n%s", to, err,
				run(t, "nft", "list", "counters"), listing(t))
		}
	}
	older(t)
	for _, to := range outside {
		if err := send(t.Context(), to); !errors.Is(err, unix.EPERM) {
			t.Errorf("by the rules of an earlier version the node reaches %s: %v, the test shows nothing", to, err)
		}
	}
	before := listing(t)
	if err := open(t, o).ReleaseNode(); err != nil {
		t.Fatal(err)
	}
	for i, to := range outside {
		if err := send(t.Context(), to); err != nil {
			t.Errorf("the node does not reach %s: %v", to, err)
		}
		if strings.Contains(listing(t), own[i].String()) {
			t.Errorf("%s is still there:\n%s", own[i], listing(t))
		}
	}
	if got, want := strings.Count(listing(t), pod.String()), strings.Count(before, pod.String()); got != want ||
		want == 0 {
		t.Errorf("the pod is there %d times, want %d", got, want)
	}
	after := generationOf(t)
	if err := open(t, o).ReleaseNode(); err != nil || generationOf(t) != after {
		t.Errorf("a second time it changes something, or fails: %v", err)
	}
}

func TestReleasingWithoutATableIsNoError(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		nodeWithAWire(t)
		if err := open(t, Options{}).ReleaseNode(); err != nil || foreign(t) != "" {
			t.Errorf("%v, and there is %q", err, foreign(t))
		}
	})
}

func generationOf(t *testing.T) uint32 { return generation(t, open(t, Options{})) }

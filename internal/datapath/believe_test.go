// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/program"
)

// claimed are pods at these addresses, all isolated.
func claimed(addrs ...string) *program.Program {
	p := isolated()
	web := p.Pods[0]
	p.Pods = nil
	for _, a := range addrs {
		pod := web
		pod.Addr, pod.Name = netip.MustParseAddr(a), "shop/at-"+a
		p.Pods = append(p.Pods, pod)
	}
	return p
}

func TestWhichAddressesMayBeThoseOfPods(t *testing.T) {
	for _, c := range []struct {
		name              string
		path              *links.Path
		routed, announced bool
		stray             bool
	}{
		{"an interface of pods", &links.Path{}, false, false, false},
		{"an interface of others", &links.Path{Elsewhere: true}, false, false, true},
		{"no route", nil, false, false, false},
		{"a gateway, or the node", nil, true, false, true},
		{"a gateway, but the runtime knows it", nil, true, true, false},
		{"an interface of others, but the runtime knows it", &links.Path{Elsewhere: true}, false, true, false},
	} {
		p, paths := claimed("10.0.0.1"), map[netip.Addr]links.Path{}
		addr := p.Pods[0].Addr
		if c.path != nil {
			paths[addr] = *c.path
		}
		got := strays(p, paths, func(netip.Addr) bool { return c.routed }, func(netip.Addr) bool { return c.announced })
		if got[addr] != c.stray {
			t.Errorf("%s: left out is %t, want %t", c.name, got[addr], c.stray)
		}
	}
}

func TestWhatIsLeftOutIsTheSameSliceAgain(t *testing.T) {
	var b belief
	p := claimed("10.0.0.1", "10.0.0.2")
	if got := b.leave(p, nil); got != p {
		t.Error("nothing is left out, and the program is another one")
	}
	out := map[netip.Addr]bool{p.Pods[0].Addr: true}
	first := b.leave(p, out).Pods
	if len(first) != 1 || first[0].Addr != p.Pods[1].Addr || len(p.Pods) != 2 {
		t.Fatalf("left are %v of %v", first, p.Pods)
	}
	if again := b.leave(p, map[netip.Addr]bool{p.Pods[0].Addr: true}).Pods; &again[0] != &first[0] {
		t.Error("the same is another slice")
	}
	if other := b.leave(p, map[netip.Addr]bool{p.Pods[1].Addr: true}).Pods; other[0].Addr != p.Pods[0].Addr {
		t.Error("what is left out is another pod, and the slice is the same")
	}
	next := claimed("10.0.0.1", "10.0.0.3")
	if other := b.leave(next, out).Pods; other[0].Addr != next.Pods[1].Addr {
		t.Error("the pods are others, and the slice is the same")
	}
}

// A host outside, a neighbour on the wire, and the node itself keep their traffic
// if a pod claims their address. The pod with a route of its own is believed, and
// so is one as soon as its route comes.
func TestAnAddressThatLeadsElsewhereIsNoPods(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
		run(t, "ip", "link", "set", "eth0", "up")
		run(t, "ip", "link", "set", "lo", "up")
		run(t, "ip", "addr", "add", "192.168.7.2/24", "dev", "eth0")
		run(t, "ip", "route", "add", "10.0.0.0/8", "via", "192.168.7.1")
		pairAway(t, "veth-web")
		run(t, "ip", "route", "add", webPod, "dev", "veth-web")
		p := claimed("192.168.7.2", "192.168.7.9", "10.9.9.9", "172.16.0.9", webPod)
		d := open(t, Options{})
		healthy(t, d, p)
		lists := func(want ...string) {
			t.Helper()
			for _, pod := range p.Pods {
				for _, set := range []string{"map to4", "set local4", "set self4"} {
					kind, name, _ := strings.Cut(set, " ")
					there := strings.Contains(run(t, "nft", "list", kind, "inet", "podwall", name), pod.Addr.String())
					wanted := strings.Contains(strings.Join(want, " "), pod.Addr.String())
					if there != wanted {
						t.Errorf("%s in %s: %t, want %t", pod.Addr, set, there, wanted)
					}
				}
			}
		}
		lists(webPod, "172.16.0.9") // the last one has no route at all
		if n := generation(t, d); healthy(t, d, p).Changes != 0 || generation(t, d) != n {
			t.Error("the same program twice sends something")
		}
		run(t, "ip", "route", "add", "10.9.9.9", "dev", "veth-web")
		healthy(t, d, p)
		lists(webPod, "172.16.0.9", "10.9.9.9")
	})
}

func TestAnAddressThatLeadsElsewhereIsNamedAfterAWhile(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "ip", "link", "set", "lo", "up")
		run(t, "ip", "addr", "add", "192.168.7.2/24", "dev", "lo")
		for _, unknownOpen := range []bool{false, true} {
			d := open(t, Options{OpenUnknown: unknownOpen})
			p := claimed("192.168.7.2")
			if closed := len(healthy(t, d, p).Elsewhere) == 1; closed == unknownOpen {
				t.Errorf("unknown pods open %t: the report has the address as closed: %t", unknownOpen, closed)
			}
			for a, pod := range d.misled {
				pod.since = pod.since.Add(-grace)
				d.misled[a] = pod
			}
			var said []Problem
			for _, problem := range apply(t, d, p).Problems {
				if problem.Subject == "pods elsewhere" {
					said = append(said, problem)
				}
			}
			if len(said) != 1 || said[0].Blocking || !strings.Contains(said[0].Text, "shop/at-192.168.7.2 (192.168.7.2)") {
				t.Errorf("unknown pods open %t: %+v, want one problem that names the pod and does not block", unknownOpen, said)
			}
			if listed := strings.Contains(listing(t), "192.168.7.2"); listed != unknownOpen {
				t.Errorf("unknown pods open %t: the address is listed: %t", unknownOpen, listed)
			}
		}
	})
}

// An announced pod is a pod whatever the main routing table says.
func TestWhatTheRuntimeAnnouncedIsBelieved(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "ip", "link", "set", "lo", "up")
		run(t, "ip", "addr", "add", "192.168.7.2/24", "dev", "lo")
		d := open(t, Options{Announced: func(a netip.Addr) bool { return a.String() == "192.168.7.2" }})
		healthy(t, d, claimed("192.168.7.2"))
		if !strings.Contains(listing(t), "192.168.7.2") {
			t.Error("the address is not listed")
		}
	})
}

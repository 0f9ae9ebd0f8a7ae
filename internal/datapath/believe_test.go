// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/netpol/decide"
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

// An external host, a neighbour on the wire, and the node itself keep their traffic if a pod claims their
// address. A pod with its own route is accepted, as soon as the route exists.
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
				for _, set := range []string{"map pod-ingress4", "set local-pods4", "set hairpin4"} {
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
			d := open(t, Options{Options: decide.Options{OpenUnknown: unknownOpen}})
			p := claimed("192.168.7.2")
			if closed := len(healthy(t, d, p).Elsewhere) == 1; closed == unknownOpen {
				t.Errorf("unknown pods open %t: the report has the address as closed: %t", unknownOpen, closed)
			}
			d.now = func() time.Time { return time.Now().Add(decide.Grace) }
			var said []decide.Problem
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

// An announced pod is accepted regardless of the main routing table.
func TestWhatTheRuntimeAnnouncedIsBelieved(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		run(t, "ip", "link", "set", "lo", "up")
		run(t, "ip", "addr", "add", "192.168.7.2/24", "dev", "lo")
		d := open(t, Options{Announced: func(a netip.Addr) ([]string, bool) { return nil, a.String() == "192.168.7.2" }})
		healthy(t, d, claimed("192.168.7.2"))
		if !strings.Contains(listing(t), "192.168.7.2") {
			t.Error("the address is not listed")
		}
	})
}

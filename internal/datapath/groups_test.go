// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// The first isolated pod on a bridge (ingress) ends existing flows to groups there. It ends no flow of the
// node, and none on another bridge.
func TestTheFirstIsolatedPodOfABridgeEndsItsFlowsToGroups(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		addBridges(t)
		d := open(t, Options{})
		watch(t, d)
		pods := isolated() // on br0
		for _, a := range []string{"10.244.1.6", "10.244.3.6"} {
			pods.Pods = append(pods.Pods, program.Pod{Addr: netip.MustParseAddr(a), Name: a})
		}
		none := &program.Program{Pods: append([]program.Pod(nil), pods.Pods...)}
		none.Pods[0].Ingress = ""
		apply(t, d, none)
		all := [][2]string{{"10.244.1.6", "224.0.0.251"}, {"10.244.1.6", "255.255.255.255"}, {"10.244.1.6", "10.244.1.255"},
			{"10.244.3.6", "224.0.0.251"}, {"10.244.3.6", "10.244.3.255"}, {"10.244.1.1", "224.0.0.251"}, {"10.244.1.6", elsewhere}}
		var left []string
		for i, f := range all {
			connect(t, inet.UDP, f[0], f[1])
			if i > 2 {
				left = append(left, line(inet.UDP, f[0], f[1]))
			}
		}
		if got, want := drive(t, d, pods, left...), (Cuts{Ingress: 3}); got != want {
			t.Errorf("cut %+v, want %+v", got, want)
		}
	})
}

// The same if an isolated pod is found on the bridge and nothing else changes.
func TestAnIsolatedPodThatIsFoundOnABridgeEndsItsFlowsToGroups(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		addBridges(t)
		run(t, "ip", "route", "add", "10.244.1.5/32", "dev", "br1")
		d := open(t, Options{})
		watch(t, d)
		pods := isolated()
		pods.Pods = append(pods.Pods, program.Pod{Addr: netip.MustParseAddr("10.244.1.6"), Name: "open"})
		apply(t, d, pods)
		connect(t, inet.UDP, "10.244.1.6", "224.0.0.251")
		for end, looks := time.Now().Add(patience), 0; looks < 2; time.Sleep(10 * time.Millisecond) { // the first and the second of the start
			if looks += apply(t, d, pods).Cuts.Scans.Times; time.Now().After(end) {
				t.Fatalf("%d looks at the connections in %s", looks, patience)
			}
		}
		drive(t, d, pods, line(inet.UDP, "10.244.1.6", "224.0.0.251")) // is allowed
		run(t, "ip", "route", "del", "10.244.1.5/32", "dev", "br1")
		drive(t, d, pods)
	})
}

// addBridges makes two bridges without multicast snooping, since they would join groups themselves.
func addBridges(t *testing.T) {
	t.Helper()
	for _, b := range [][2]string{{"br0", "10.244.1.1/24"}, {"br1", "10.244.3.1/24"}} {
		run(t, "ip", "link", "add", b[0], "type", "bridge", "mcast_snooping", "0")
		run(t, "ip", "addr", "add", b[1], "dev", b[0])
		run(t, "ip", "link", "set", b[0], "up")
	}
}

// healthyWhen applies after each change until the state is visible: an interface is notified more than
// once, and the first notification may be about an earlier state.
func healthyWhen(t *testing.T, d *Datapath, shows func() bool) {
	t.Helper()
	for {
		woken(t, d)
		healthy(t, d, isolated())
		if shows() {
			return
		}
	}
}

// The chain at prerouting exists from the first bridge on, including other programs' bridges.
func TestTheFirstBridgeBringsTheChainAtPrerouting(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		watch(t, d)
		healthy(t, d, isolated())
		if strings.Contains(listing(t), "hook prerouting") {
			t.Errorf("it is there without a bridge:\n%s", listing(t))
		}
		run(t, "ip", "link", "add", "br0", "type", "bridge")
		healthyWhen(t, d, func() bool { return strings.Contains(listing(t), "hook prerouting") })
		run(t, "ip", "link", "add", "cni0", "type", "bridge") // it may have an unknown pod
		healthyWhen(t, d, func() bool { return isIn(t, "pod-bridges", "cni0") })
		if isIn(t, "pod-bridges", "br0") {
			t.Error("a bridge that is none of the pod network is closed")
		}
	})
}

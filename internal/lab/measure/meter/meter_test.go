// SPDX-License-Identifier: Apache-2.0

//go:build linux

package meter_test

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/meter"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// TestMain plays the meter's process when it is asked to.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "meter" {
		if err := meter.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	entry.Main(m)
}

// pair is a bed with a client and a server on two nodes.
func pair(t *testing.T) (client, server *lab.Endpoint) {
	t.Helper()
	bed, err := lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: []string{"node1", "node2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	add := func(name, node, v4, v6 string) *lab.Endpoint {
		e, err := bed.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: "default", Name: name}, Node: node,
			IPs: []netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	return add("client", "node1", "10.244.1.5", "fd00:244:1::5"), add("server", "node2", "10.244.2.5", "fd00:244:2::5")
}

func start(t *testing.T) *meter.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := meter.Start([]string{self, "meter"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestEveryKindIsMeasuredInBothFamilies(t *testing.T) {
	client, server := pair(t)
	p := start(t)
	for _, a := range server.Addrs {
		cost := map[meter.Kind]float64{}
		for _, k := range []meter.Kind{meter.Established, meter.First, meter.Unanswered, meter.Connection, meter.Keepalive, meter.Stream} {
			got, err := p.Measure(meter.Request{Kind: k, From: client.NS.Path(), To: server.NS.Path(), Server: netip.AddrPortFrom(a, 80), N: 200, Times: 3})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 3 || got[0] <= 0 || got[1] <= 0 || got[2] <= 0 {
				t.Errorf("%s to %s: %v, want three positive values", k, a, got)
			}
			cost[k] = min(got[0], got[1], got[2])
		}
		// A connection of its own is at least a handshake more, on any machine.
		if cost[meter.Connection] < 1.5*cost[meter.Keepalive] {
			t.Errorf("to %s a request costs %v ns with a connection of its own, %v ns without", a, cost[meter.Connection], cost[meter.Keepalive])
		}
	}
}

// What is measured must have arrived: the kernel's own counts say so.
func TestTheReceiverGetsWhatIsSent(t *testing.T) {
	client, server := pair(t)
	p := start(t)
	before := received(t, server)
	if _, err := p.Measure(meter.Request{Kind: meter.First, From: client.NS.Path(), To: server.NS.Path(),
		Server: netip.AddrPortFrom(server.Addrs[0], 80), N: 1000, Times: 2}); err != nil {
		t.Fatal(err)
	}
	if got := received(t, server) - before; got < 2000 || got > 2200 {
		t.Errorf("%d packets arrived, want 2000 and the few that warm up", got)
	}
}

// With fronts the client calls one after the other: here each of two addresses of the server gets its half.
func TestFrontsAreCalledInTurn(t *testing.T) {
	client, server := pair(t)
	p := start(t)
	fronts := []netip.AddrPort{netip.AddrPortFrom(server.Addrs[0], 80), netip.MustParseAddrPort("10.244.2.77:80")}
	for _, tt := range []struct {
		fronts []netip.AddrPort
		want   int // nobody has the second address
	}{{fronts[:1], 1000}, {fronts, 500}} {
		before := received(t, server)
		if _, err := p.Measure(meter.Request{Kind: meter.First, From: client.NS.Path(), To: server.NS.Path(),
			Server: netip.MustParseAddrPort("0.0.0.0:80"), Fronts: tt.fronts, N: 1000, Times: 1}); err != nil {
			t.Fatal(err)
		}
		if got := received(t, server) - before; got < tt.want || got > tt.want+100 {
			t.Errorf("%d packets arrived, want %d and the few that warm up", got, tt.want)
		}
	}
	for _, k := range []meter.Kind{meter.Established, meter.Connection, meter.Keepalive} {
		if _, err := p.Measure(meter.Request{Kind: k, From: client.NS.Path(), To: server.NS.Path(),
			Server: netip.MustParseAddrPort("0.0.0.0:80"), Fronts: fronts[:1], N: 10, Times: 1}); err != nil {
			t.Errorf("%s: %v", k, err)
		}
	}
}

// received is how many packets arrived at the pod's link.
func received(t *testing.T, e *lab.Endpoint) (n int) {
	t.Helper()
	err := e.NS.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		for line := range strings.Lines(string(text)) {
			if name, rest, _ := strings.Cut(strings.TrimSpace(line), ":"); name == "eth0" {
				var bytes int
				if _, err := fmt.Sscan(rest, &bytes, &n); err != nil {
					return err
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatCannotBeMeasuredIsAnErrorAndTheMeterGoesOn(t *testing.T) {
	client, server := pair(t)
	p := start(t)
	here := netip.AddrPortFrom(server.Addrs[0], 80)
	good := meter.Request{Kind: meter.Keepalive, From: client.NS.Path(), To: server.NS.Path(), Server: here, N: 10, Times: 1}
	tests := map[string]func(*meter.Request){
		"unknown kind":             func(r *meter.Request) { r.Kind = "feeling" },
		"opening the network name": func(r *meter.Request) { r.From = "/does/not/exist" },
		"binding":                  func(r *meter.Request) { r.Server = netip.MustParseAddrPort("10.9.9.9:80") },
		"more than there are":      func(r *meter.Request) { r.Kind, r.N = meter.First, 70_000 },
	}
	for want, spoil := range tests {
		bad := good
		spoil(&bad)
		if _, err := p.Measure(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if _, err := p.Measure(good); err != nil {
			t.Fatal(err)
		}
	}
}

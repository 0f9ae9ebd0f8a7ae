// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/lab/testkit/tracked"
	"github.com/podwall/podwall/internal/observe"
)

// putUDP is putService of UDP. It returns where the second endpoint is.
func (w *listWorld) putUDP(i, edit int) (endpoint netip.AddrPort, err error) {
	s, e := aService("many", i, edit)
	udp := corev1.ProtocolUDP
	s.Spec.Ports[0].Protocol, e.Ports[0].Protocol = udp, &udp
	if edit == 0 {
		if _, err := w.server.Put(s); err != nil {
			return endpoint, err
		}
	}
	_, err = w.server.Put(e)
	return netip.AddrPortFrom(netip.MustParseAddr(e.Endpoints[1].Addresses[0]), uint16(*e.Ports[0].Port)), err
}

// UDP clients of endpoints that go have their connections ended, also while 100 endpoints a second go and changes share
// a scan of the connection table.
func TestUDPClientsOfEndpointsThatGoAreEnded(t *testing.T) {
	w := newListWorld(t)
	services, rounds := soak.Times(20, 10_000), soak.Times(100, 6_000)
	endpoints := make([]netip.AddrPort, services)
	for i := range services {
		var err error
		endpoints[i], err = w.putUDP(i, 0)
		check(t, err)
	}
	a := w.connect("--run-service-proxy=true", "--load-balancer-health-port=0")
	a.until("of all Services", func(s observe.Status) bool { return s.Services.Services >= services })
	ends, err := tracked.Watch(w.node())
	check(t, err)
	t.Cleanup(func() { check(t, ends.Close()) })

	const firstPort = 10_000
	gone := make([]time.Time, rounds)
	began := make([]time.Time, rounds)
	missing := rounds
	hear := func(until time.Time) {
		for {
			ports, err := ends.Next(until)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			check(t, err)
			for _, p := range ports {
				if n := int(p) - firstPort; n >= 0 && n < rounds && gone[n].IsZero() && !began[n].IsZero() {
					gone[n] = time.Now()
					missing--
				}
			}
			if missing == 0 {
				return
			}
		}
	}
	start := time.Now()
	for n := range rounds {
		i, edit := n%services, n/services+1
		s, _ := aService("many", i, edit)
		check(t, tracked.Put(w.node(), tracked.Connection{Protocol: inet.UDP,
			Client:  netip.AddrPortFrom(netip.MustParseAddr("198.51.100.77"), uint16(firstPort+n)),
			Front:   netip.AddrPortFrom(netip.MustParseAddr(s.Spec.ClusterIP), 80),
			Backend: endpoints[i]}))
		began[n] = time.Now()
		endpoints[i], err = w.putUDP(i, edit)
		check(t, err)
		hear(start.Add(time.Duration(n+1) * 10 * time.Millisecond))
	}
	hear(time.Now().Add(patience))
	if missing > 0 {
		t.Fatalf("%d of %d connections to endpoints that went have not ended", missing, rounds)
	}
	var took []time.Duration
	for n := range rounds {
		took = append(took, gone[n].Sub(began[n]))
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(rounds-1)*percent/100].Round(100 * time.Microsecond) }
	t.Logf("%d UDP Services, %d endpoints replaced in %v: from the API server's event to the end of a client's connection "+
		"%v in the middle, %v in 99 of 100, %v at most", services, rounds, time.Since(start).Round(time.Millisecond), at(50),
		at(99), at(100))
	if middle := at(50); soak.Long() && middle > time.Second {
		t.Errorf("a connection to an endpoint that went lives for %v", middle)
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
)

const (
	// limit is how long a cut may take on a busy machine. The promise is one second; the log of the test
	// shows the actual time.
	limit = 3 * time.Second
	// patience is how long something that must happen may take.
	patience = time.Minute
)

// everyTalk lets every client talk to the server: by its own address and by the Service's, over TCP and
// UDP, IPv4 and IPv6.
func (w *world) everyTalk(t *testing.T, h *host) (list []*talk) {
	t.Helper()
	for _, a := range w.actors[1:] {
		for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
			for _, v6 := range []bool{false, true} {
				for name, to := range map[string]netip.AddrPort{
					"direct":  netip.AddrPortFrom(w.actors[0].addr(v6), serverPort),
					"service": netip.AddrPortFrom(front(v6), servicePort),
				} {
					k := h.call(t, w.ns(t, a.name), proto, w.port(a, v6), to)
					k.name = fmt.Sprintf("%s from %s, %s, IPv6 %t", proto, a.name, name, v6)
					k.from, k.to, k.goes = w.taps[a.name], w.taps[server], a.role == "good"
					list = append(list, k)
				}
			}
		}
	}
	return list
}

// await wants every connection to continue in both directions.
func await(t *testing.T, list []*talk) {
	t.Helper()
	for _, k := range list {
		asked, given := k.asking.count(), uint64(0)
		if g := k.giving(); g != nil {
			given = g.count()
		}
		for end := time.Now().Add(patience); !k.alive(asked, given); time.Sleep(beat) {
			if time.Now().After(end) {
				t.Fatalf("%s: the ends do not hear each other (%d, %d; %v)", k.name, asked, given, k.asking.broken())
			}
		}
	}
}

// settle waits until all cuts are done, and logs how long the slowest took.
func settle(t *testing.T, start time.Time, list []*talk) {
	t.Helper()
	time.Sleep(time.Until(start.Add(limit)))
	var slowest time.Duration
	for _, k := range list {
		if _, last := k.entered(); !k.goes {
			slowest = max(slowest, last.Sub(start))
		}
	}
	t.Logf("the last packet of a denied connection arrived %s after the policy was written", slowest)
	if slowest > limit {
		t.Errorf("a denied connection went on for %s", slowest)
	}
}

// stayCut wants no more packets of the denied connections to arrive, at either end.
func stayCut(t *testing.T, list []*talk) {
	t.Helper()
	before := make([]int, len(list))
	for i, k := range list {
		before[i], _ = k.entered()
	}
	time.Sleep(quiet())
	for i, k := range list {
		n, _ := k.entered()
		switch {
		case !k.goes && n != before[i]:
			t.Errorf("%s: %d packets arrived after it was cut", k.name, n-before[i])
		case k.goes && n == before[i]:
			t.Errorf("%s: is allowed, and nothing arrives any more", k.name)
		}
	}
}

// unharmed wants the connections that stay allowed to have lost no packet.
func unharmed(t *testing.T, list []*talk) {
	t.Helper()
	for _, k := range list {
		if !k.goes {
			continue
		}
		for _, e := range []*end{k.asking, k.giving()} {
			if e.lost() > 0 || e.broken() != nil {
				t.Errorf("%s: is allowed, and lost %d messages, error %v", k.name, e.lost(), e.broken())
			}
		}
	}
}

// Both ends of every connection keep talking. Denied connections end at once and stay cut; the others lose
// nothing. Connections that are allowed again work again.
func TestDeniedConnectionsAreCutAndStayCut(t *testing.T) {
	denials := []struct{ name, policy string }{
		{"ingress", policy("server", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: good}}}]}]`)},
		{"egress", policy("bad", `policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]`)},
	}
	for _, setup := range []struct {
		name   string
		wiring lab.Wiring
		args   []string
	}{
		{"routed", lab.Routed, nil},
		{"bridge", lab.Bridge, nil},
		{"filter", lab.Routed, []string{"--datapath=filter"}},
	} {
		t.Run(setup.name, func(t *testing.T) {
			w := newWorld(t, setup.wiring, setup.args...)
			for _, d := range denials {
				t.Run(d.name, func(t *testing.T) {
					h := listen(t, w.ns(t, server), serverPort, w.actors[0].addrs()...)
					defer h.end()
					list := w.everyTalk(t, h)
					await(t, list)
					start := time.Now()
					w.apply(t, d.policy)
					settle(t, start, list)
					stayCut(t, list)
					unharmed(t, list)
					w.apply(t)
					w.again(t, h, list)
				})
			}
		})
	}
}

// again wants connections that are allowed again to work: UDP on the old ports, and all with new ones.
func (w *world) again(t *testing.T, h *host, list []*talk) {
	t.Helper()
	await(t, datagrams(list))
	await(t, w.everyTalk(t, h))
}

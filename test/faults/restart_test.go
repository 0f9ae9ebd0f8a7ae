// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// eachWiring runs a test on a routed and on a bridged world.
func eachWiring(t *testing.T, test func(t *testing.T, w *world)) {
	for _, wiring := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(wiring), func(t *testing.T) {
			w := newWorld(t, wiring)
			w.publish(usual()...)
			test(t, w)
		})
	}
}

// busy are policies that change much in the kernel and nothing for the traffic.
func busy(n int) []string {
	list := usual()
	if n%2 == 1 {
		list[0] = policy("victim", "victim", fmt.Sprintf(`policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}]},
  {from: [{ipBlock: {cidr: 198.51.100.%d/32}}], ports: [{port: %d}]}]`, n%256, 1+n%60000))
	}
	if n%3 == 1 {
		list[1] = policy("jailed", "jailed", fmt.Sprintf(`policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 198.51.100.%d/32}}]}]`, n%256))
	}
	if n%5 == 1 {
		list = append(list, policy("peer", "peer", `policyTypes: [Ingress], ingress: []`))
	}
	return list
}

// burst publishes changes until end is called.
func (w *world) burst() (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(8 * time.Millisecond):
				w.publish(busy(n)...)
			}
		}
	}()
	return func() { close(stop); <-done }
}

func TestRestartsUnderTraffic(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		a := w.enforced(w.start())
		want := w.tables()
		tr := w.traffic()

		for range soak.Times(1, 20) {
			a.Stop()
			tr.pause(200)
			a = w.enforced(w.start())
		}
		for _, args := range [][]string{{"--datapath=filter"}, nil, {"--unknown-pods=open"}, nil} {
			a.Stop()
			a = w.enforced(w.start(args...))
			tr.pause(200)
		}
		w.same("after filter chains, nat chains and open unknown pods", want)
		a.Kill()
		tr.pause(200)
		tr.finish(true)
	})
}

// A process may be killed at any time: during its start, its self-test, a transaction.
func TestKillsInABurstOfChangesUnderTraffic(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		a := w.enforced(w.start())
		want := w.tables()
		tr := w.traffic()
		enough := uint64(soak.Times(1, 520_000))
		for round := 0; round < 8 || tr.sent.Load() < enough; round++ {
			end := w.burst()
			wait := time.Duration(rand.IntN(300)) * time.Millisecond
			time.Sleep(wait) // the test needs arbitrary moments
			a.Kill()
			end()
			a = w.start()
		}
		w.publish(usual()...)
		w.enforced(a)
		tr.pause(200)
		tr.finish(true)
		w.same("in the end", want)
	})
}

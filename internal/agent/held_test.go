// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/observe"
)

// A pod that is held for longer than a second is named, with the reason, also if no
// pass comes meanwhile. What is held for less, or is not any more, is not.
func TestPodsThatAreHeldAreNamed(t *testing.T) {
	addr := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	for why, report := range map[observe.HeldWhy]datapath.Report{
		observe.HeldConnections: {Held: addr},
		observe.HeldElsewhere:   {Findings: decide.Findings{Elsewhere: addr}},
	} {
		r := &recorder{report: report}
		run(t, r, func(l *agent.Loop, settle func()) {
			time.Sleep(900 * time.Millisecond)
			if held := l.Observer.Status().Held; len(held) != 0 {
				t.Errorf("%s: named before a second: %v", why, held)
			}
			settle()
			held := l.Observer.Status().Held
			if len(held) != 1 || held[0].Pod != "shop/web" || held[0].Why != why {
				t.Fatalf("%s: %v are held", why, held)
			}
			since := held[0].Since
			l.Store.Update(func(tx *cluster.Tx) { tx.SetNamespace(&cluster.Namespace{Name: "other"}) })
			settle()
			if held := l.Observer.Status().Held; len(held) != 1 || !held[0].Since.Equal(since) {
				t.Errorf("%s: after another pass %v are held, want since %v", why, held, since)
			}
			r.report = datapath.Report{}
			l.Store.Update(func(tx *cluster.Tx) { tx.SetNamespace(&cluster.Namespace{Name: "third"}) })
			settle()
			if held := l.Observer.Status().Held; len(held) != 0 {
				t.Errorf("%s: in the end %v are held", why, held)
			}
		})
	}
}

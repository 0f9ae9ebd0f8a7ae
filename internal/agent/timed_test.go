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
)

// A change is timed from the moment in which the store has it to the commit after
// which nothing of it waits.
func TestAChangeIsTimedUntilAllOfItIsInForce(t *testing.T) {
	r := &recorder{}
	run(t, r, func(l *agent.Loop, settle func()) {
		l.Clock = func() int64 { return time.Now().UnixNano() }
		l.Store.SetClock(l.Clock)
		change := func(name string) {
			l.Store.Update(func(tx *cluster.Tx) { tx.SetNamespace(&cluster.Namespace{Name: name}) })
			settle()
		}
		settle() // the first pass is over
		r.report = datapath.Report{Held: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
		change("one")
		time.Sleep(3 * time.Second)
		if took := l.Observer.Status().Programming; took != 0 {
			t.Errorf("a change is in force after %g s while a pod is held", took)
		}
		r.report = datapath.Report{}
		change("two")
		if took := l.Observer.Status().Programming; took < 3 || took > 4.5 {
			t.Errorf("a change that waited for four seconds was in force after %g s", took)
		}
		change("three")
		if took := l.Observer.Status().Programming; took > 0.1 {
			t.Errorf("one that did not wait was in force after %g s", took)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/observe"
)

// once runs an agent command that does one thing and exits.
func (w *world) once(status int, args ...string) string {
	w.t.Helper()
	p := start(w.t, w.node(), agentProgram(), append([]string{"--hostname-override=node1", "--gate-socket="}, args...)...)
	p.Exits(status)
	return p.Log()
}

// isOpen says whether the status shows an open node, with its reason.
func isOpen(s observe.Status) bool {
	return !s.Ready && s.Datapath.Datapath == "open" && slices.ContainsFunc(s.Problems, func(p observe.Problem) bool {
		return p.Subject == "node open" && strings.Contains(p.Text, "a drill") && p.Blocking
	})
}

// In an emergency an operator opens the node and closes it again. In between no table of podwall's is in
// the kernel, a restarted agent does not change that, and the traffic that must always pass does. After the
// node is closed, denied traffic does not pass, including connections opened while the node was open.
func TestANodeIsOpenedAndClosedUnderTraffic(t *testing.T) {
	needs(t, "nft")
	eachWiring(t, func(t *testing.T, w *world) {
		a := w.enforced(w.start())
		tr := w.traffic()
		tr.pause(100)
		w.once(0, "--open-node=a drill")
		a.until("that the node is open", isOpen)
		before := len(tr.arrived())
		tr.pause(300)
		if len(tr.arrived()) == before {
			t.Error("the node is open, and what was denied does not pass")
		}
		if exists, err := w.table.Exists(); exists || err != nil {
			t.Errorf("on an open node podwall's table is there: %t, %v", exists, err)
		}
		if code, _ := a.Get("/healthz"); code != http.StatusOK {
			t.Errorf("/healthz answers %d on an open node, want 200", code)
		}
		w.publish(busy(1)...) // the agent follows, and writes nothing
		tr.pause(300)
		if !strings.Contains(a.Log(), "node open") {
			t.Error("the log says nothing of the open node")
		}
		a.Stop()
		if text := w.once(5, "--close-node"); !strings.Contains(text, "no podwall-agent runs") {
			t.Errorf("without an agent, --close-node says %q", text)
		}
		a = w.start()
		a.until("that the node is still open", isOpen)
		w.publish(usual()...)

		w.once(0, "--close-node")
		w.enforced(a)
		await(t, "end of the connections that the open node let in", func() bool {
			n := len(tr.arrived())
			tr.pause(400)
			return len(tr.arrived()) == n
		})
		before = len(tr.arrived())
		tr.pause(600)
		if n := len(tr.arrived()) - before; n > 0 {
			t.Errorf("%d packets that must not pass did after the node was closed", n)
		}
		tr.halt()
		check(t, tr.err)
		t.Logf("must always pass: %s; while the node was open %d of %d others passed", tr.steadyEnd(), before, tr.sent.Load())
		if n := a.failures(); n > 0 {
			t.Errorf("%d passes failed", n)
		}
	})
}

// The same without an agent: opening needs none, and an agent that starts respects it.
func TestANodeIsOpenedWithoutAnAgent(t *testing.T) {
	needs(t, "nft")
	eachWiring(t, func(t *testing.T, w *world) {
		w.enforced(w.start()).Kill()
		w.once(0, "--open-node=a drill")
		if text := w.ruleset(); strings.Contains(text, "podwall {") || !strings.Contains(text, "a drill") {
			t.Errorf("after the opening the kernel holds\n%s", text)
		}
		w.nft("add table inet podwall") // an older release's gate would load closed rules
		a := w.start()
		a.until("that the node is open", isOpen)
		if exists, err := w.table.Exists(); exists || err != nil {
			t.Errorf("on an open node podwall's table is there: %t, %v", exists, err)
		}
		w.nft("add table inet podwall")
		await(t, "removal of the table", func() bool {
			exists, err := w.table.Exists()
			return err == nil && !exists
		})
		w.nft("delete table inet " + ruleset.OpenName) // doing it by hand also works
		w.enforced(a).Stop()
		w.once(0, "--open-node=a drill")
		w.once(0, "--cleanup-config") // leaves no mark
		if text := w.ruleset(); strings.Contains(text, "podwall") {
			t.Errorf("after the cleanup the kernel holds\n%s", text)
		}
	})
}

// ruleset is all that nftables has on node1.
func (w *world) ruleset() string {
	w.t.Helper()
	text, err := w.run("", "nft", "list", "ruleset")
	check(w.t, err)
	return text
}

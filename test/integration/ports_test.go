// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab"
)

// probe runs podwall-agent --probe inside a node, as the kubelet does.
func (w *world) probe(node, what string) (text string, ok bool) {
	w.t.Helper()
	var out strings.Builder
	cmd := exec.CommandContext(w.t.Context(), agentProgram(w.t), "--probe="+what)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := w.bed.Node(node).NS.Start(cmd); err != nil {
		w.t.Fatal(err)
	}
	err := cmd.Wait()
	return out.String(), err == nil
}

// While another program has the port for health the agent enforces, a probe that is a
// process asks it, and the port is its own as soon as it is free.
func TestAnAgentEnforcesWhoeverHasItsPort(t *testing.T) {
	w := newSmallWorld(t, lab.Routed)
	if text, ok := w.probe("node1", "live"); ok || !strings.Contains(text, "no podwall-agent runs") {
		t.Errorf("without an agent the probe says %t %q", ok, text)
	}
	taken, err := w.bed.Node("node1").NS.Listen(t.Context(), "tcp", "127.0.0.1:20244")
	if err != nil {
		t.Fatal(err)
	}
	w.denyIngress()
	a := w.agent("node1", "--health-addr=127.0.0.1")
	for limit := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		text, ok := w.probe("node1", "ready")
		if ok {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the agent is not ready: %s", text)
		}
	}
	if text, ok := w.probe("node1", "live"); !ok || text != "live\n" {
		t.Errorf("the probe says %t %q", ok, text)
	}
	w.becomes("ready", openWhenDenied)
	if !strings.Contains(a.Log(), "port for health") {
		t.Error("the log does not name the port")
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	a.ready()
}

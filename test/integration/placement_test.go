// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/podwall/podwall/internal/lab"
)

func TestAgentRefusesANamespaceThatIsNotItsNodes(t *testing.T) {
	w := newWorld(t, lab.Routed, "node1")
	w.createNode("node9", addrs("172.30.0.99", "fd00:172:30::99"))
	a := startAgent(t, w.bed.Node("node1").NS, "node9", seedArguments(w.server.Kubeconfig)...)
	a.Exits(4)
	a.complains("none of the addresses of node node9 (172.30.0.99, fd00:172:30::99) is in this network namespace")
	w.untouched("node1")
}

// A name that no Node has, as one in capitals or with a domain: the agent before
// left its table, which stays as it is until the Node is there.
func TestAgentWaitsForItsNodeAndLeavesTheTable(t *testing.T) {
	w := newSmallWorld(t, lab.Routed)
	w.denyIngress()
	first := w.agent("node1").ready()
	w.becomes("ready", openWhenDenied)
	first.Stop()
	table, generation := w.table("node1"), w.generation("node1")

	a := startAgent(t, w.bed.Node("node1").NS, "NODE1.example.org", append(seedArguments(w.server.Kubeconfig), "--cache-sync-timeout=2s")...)
	why := a.answers("/readyz", http.StatusServiceUnavailable)
	a.await("names of the Nodes that exist", func() bool {
		_, why = a.Get("/readyz")
		return strings.Contains(why, `there is no Node "NODE1.example.org"; Nodes are node1`)
	})
	a.complains("")
	if s := a.status(); len(s.Problems) != 1 || !s.Problems[0].Blocking || !strings.Contains(s.Problems[0].Cure, "NODE_NAME") {
		t.Errorf("the problems are %+v", s.Problems)
	}
	w.stays("no Node has the name")
	if now := w.table("node1"); now != table || w.generation("node1") != generation {
		t.Errorf("the agent changed nftables:\n%s\nbefore:\n%s", now, table)
	}
	a.Stop()

	// A Node that is there, whose addresses a cloud provider writes later.
	w.createNode("late", nil)
	b := startAgent(t, w.bed.Node("node1").NS, "late", seedArguments(w.server.Kubeconfig)...)
	b.await("reason", func() bool {
		_, why = b.Get("/readyz")
		return strings.Contains(why, "Node late has no addresses yet")
	})
	if w.generation("node1") != generation {
		t.Error("the agent changed nftables")
	}
	w.addressNode("late", w.bed.Node("node1").Addrs)
	b.ready()
}

func TestSecondAgentOnANodeRefuses(t *testing.T) {
	w := newWorld(t, lab.Routed, "node1")
	first := w.agent("node1").ready()
	second := w.agent("node1")
	second.Exits(4)
	second.complains("another podwall-agent runs in this network namespace")
	first.ready() // and goes on
}

func TestAgentWithoutPrivilegeSaysWhatIsMissing(t *testing.T) {
	const nobody = 65534
	if text, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(text))) != 3 || !strings.HasSuffix(strings.TrimSpace(string(text)), "4294967295") {
		if os.Getenv("CI") == "true" {
			t.Fatalf("all users are needed, but these exist (%v): %s", err, text)
		}
		t.Skip("running a process as another user needs root")
	}
	program, err := os.Open(agentProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close() // the process has its own descriptor
	w := newLab(t, lab.Routed, "node1")
	// By its descriptor, since the user need not be able to reach the file.
	cmd := exec.Command("/proc/self/fd/3", seedArguments("/nonexistent")...)
	cmd.ExtraFiles = []*os.File{program}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Env = []string{"NODE_NAME=node1"}
	a := start(t, w.bed.Node("node1").NS, "agent of nobody", cmd)
	a.Exits(3)
	a.complains("no right to use nftables; CAP_NET_ADMIN is missing: add NET_ADMIN to the container's securityContext.capabilities, or run as root on the node")
	w.untouched("node1")
}

func TestUnknownFlagIsAUsageError(t *testing.T) {
	w := newLab(t, lab.Routed, "node1")
	a := startAgent(t, w.bed.Node("node1").NS, "node1", "--run-firewal=true")
	a.Exits(2)
	text := a.Log()
	if want := "podwall-agent: unknown flag --run-firewal; did you mean --run-firewall?\n"; text != want {
		t.Errorf("the agent says %q, want %q", text, want)
	}
	w.untouched("node1")
}

// untouched wants that nobody has used nftables of a node.
func (w *world) untouched(node string) {
	w.t.Helper()
	if table := w.table(node); table != "" {
		w.t.Errorf("there is a table on %s:\n%s", node, table)
	}
}

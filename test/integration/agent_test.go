// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/launch"
	"github.com/podwall/podwall/internal/observe"
)

// seedArguments is the command line of the reference setup, and nothing else.
func seedArguments(kubeconfig string) []string {
	return []string{
		"--run-router=false", "--run-firewall=true", "--run-service-proxy=false",
		"--kubeconfig=" + kubeconfig, "--iptables-sync-period=1s", "--cache-sync-timeout=5m",
	}
}

// agent is a podwall-agent process in a network namespace.
type agent struct {
	*launch.Process
	t    *testing.T
	name string
}

// startAgent starts the agent inside a namespace. It ends with the test, and
// must then end as on a node: by SIGTERM, with status 0.
func startAgent(t *testing.T, ns *netns.NS, node string, args ...string) *agent {
	t.Helper()
	// The nodes of a test share a file system, unlike real ones.
	cmd := exec.Command(agentProgram(t), append([]string{"--gate-socket=" + filepath.Join(t.TempDir(), "gate.sock")}, args...)...)
	cmd.Env = []string{"NODE_NAME=" + node}
	return start(t, ns, "agent of "+node, cmd)
}

func start(t *testing.T, ns *netns.NS, name string, cmd *exec.Cmd) *agent {
	t.Helper()
	return &agent{launch.Start(t, ns, name, patience, cmd), t, name}
}

// answers waits until a page has a status, and returns its text.
func (a *agent) answers(path string, want int) string {
	a.t.Helper()
	var got int
	var body string
	a.await(fmt.Sprintf("%s with status %d", path, want), func() bool {
		got, body = a.Get(path)
		return got == want
	})
	return body
}

// ready waits until the agent says that it enforces.
func (a *agent) ready() *agent {
	a.t.Helper()
	a.answers("/readyz", http.StatusOK)
	return a
}

// await waits until a condition holds, as long as the process lives.
func (a *agent) await(what string, holds func() bool) {
	a.t.Helper()
	a.Await(what, holds, func() string {
		_, why := a.Get("/readyz")
		return "/readyz says: " + why
	})
}

func (a *agent) status() observe.Status {
	a.t.Helper()
	code, body := a.Get("/statusz")
	var s observe.Status
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != http.StatusOK {
		a.t.Fatalf("%s: /statusz answers %d %q (%v)", a.name, code, body, err)
	}
	return s
}

// line is a line of the agent's log.
type line struct {
	Level, Msg, Err string
}

// lines returns the log. Every line must be JSON: an operator's tools read it.
func (a *agent) lines() []line {
	a.t.Helper()
	var list []line
	for s := range strings.Lines(a.Log()) {
		if !strings.HasSuffix(s, "\n") {
			break // it is being written
		}
		var l line
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			a.t.Fatalf("%s: log line %q: %v", a.name, s, err)
		}
		list = append(list, l)
	}
	return list
}

// complains wants exactly one error in the log, with a text.
func (a *agent) complains(want string) {
	a.t.Helper()
	var errs []line
	for _, l := range a.lines() {
		if l.Level == "ERROR" {
			errs = append(errs, l)
		}
	}
	if len(errs) != 1 || !strings.Contains(errs[0].Err, want) {
		a.t.Errorf("%s: errors in the log are %+v, want one about %q", a.name, errs, want)
	}
}

// says reports whether a log line holds a text.
func (a *agent) says(text string) bool {
	a.t.Helper()
	for _, l := range a.lines() {
		if strings.Contains(l.Msg, text) {
			return true
		}
	}
	return false
}

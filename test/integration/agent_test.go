// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/observe"
)

// seedArguments is the command line of the seed document, and nothing else.
func seedArguments(kubeconfig string) []string {
	return []string{
		"--run-router=false", "--run-firewall=true", "--run-service-proxy=false",
		"--kubeconfig=" + kubeconfig, "--iptables-sync-period=1s", "--cache-sync-timeout=5m",
	}
}

// agent is a podwall-agent process in a network namespace.
type agent struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	log   string // file name
	http  *http.Client
	ended chan struct{}
	left  bool // the test has taken notice of its end
}

// startAgent starts the agent inside a namespace. It ends with the test, and
// must then end as on a node: by SIGTERM, with status 0.
func startAgent(t *testing.T, ns *netns.NS, node string, args ...string) *agent {
	t.Helper()
	// The nodes of a test share a file system, unlike real ones.
	return launch(t, ns, node, exec.Command(agentProgram(t), append([]string{"--gate-socket=" + filepath.Join(t.TempDir(), "gate.sock")}, args...)...))
}

func launch(t *testing.T, ns *netns.NS, node string, cmd *exec.Cmd) *agent {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own descriptor
	a := &agent{t: t, name: "agent of " + node, cmd: cmd, log: log.Name(), ended: make(chan struct{})}
	cmd.Env = append(cmd.Env, "NODE_NAME="+node)
	cmd.Stdout, cmd.Stderr = log, log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	a.http = &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return ns.Dial(ctx, network, addr)
		},
	}}
	if err := a.run(ns); err != nil {
		t.Fatalf("starting the agent: %v", err)
	}
	t.Cleanup(a.stopAtEnd)
	return a
}

// run keeps the thread that starts the process until the process has ended:
// the death signal comes when that thread ends, not when this program does.
func (a *agent) run(ns *netns.NS) error {
	started := make(chan error, 1)
	go func() {
		defer close(a.ended)
		err := ns.Do(func() error {
			err := a.cmd.Start()
			started <- err
			if err == nil {
				_ = a.cmd.Wait() // how it ended is in cmd.ProcessState
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	return <-started
}

// stopAtEnd ends the process if the test has not, and shows the log of a test
// that failed.
func (a *agent) stopAtEnd() {
	if !a.left {
		a.stop()
	}
	if !a.t.Failed() {
		return
	}
	text, err := os.ReadFile(a.log)
	if err != nil {
		a.t.Error(err)
	}
	a.t.Logf("log of the %s:\n%s", a.name, text)
}

// stop ends the process as a node does and wants status 0.
func (a *agent) stop() {
	a.t.Helper()
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	a.exits(0)
}

// kill ends the process as a crash does.
func (a *agent) kill() {
	a.t.Helper()
	if err := a.cmd.Process.Kill(); err != nil {
		a.t.Fatal(err)
	}
	a.exits(-1) // by a signal
}

// exits waits for the end of the process and wants a status.
func (a *agent) exits(want int) {
	a.t.Helper()
	a.left = true
	select {
	case <-a.ended:
	case <-time.After(patience):
		_ = a.cmd.Process.Kill() // it may have ended just now
		<-a.ended
		a.t.Fatalf("%s: it did not end", a.name)
	}
	if got := a.cmd.ProcessState.ExitCode(); got != want {
		a.t.Errorf("%s: exit status %d, want %d", a.name, got, want)
	}
}

// get asks for a page on the agent's own port. A server that does not answer
// has status 0.
func (a *agent) get(path string) (status int, body string) {
	a.t.Helper()
	resp, err := a.http.Get("http://127.0.0.1:20244" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("reading %s of the %s: %v", path, a.name, err)
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// answers waits until a page has a status, and returns its text.
func (a *agent) answers(path string, want int) string {
	a.t.Helper()
	var got int
	var body string
	a.await(fmt.Sprintf("%s with status %d", path, want), func() bool {
		got, body = a.get(path)
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
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if holds() {
			return
		}
		select {
		case <-a.ended:
			a.t.Fatalf("%s: it ended while the test waited for %s", a.name, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
	_, why := a.get("/readyz")
	a.t.Fatalf("%s: no %s within %s; /readyz says: %s", a.name, what, patience, why)
}

func (a *agent) status() observe.Status {
	a.t.Helper()
	code, body := a.get("/statusz")
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
	text, err := os.ReadFile(a.log)
	if err != nil {
		a.t.Fatal(err)
	}
	var list []line
	for s := range strings.Lines(string(text)) {
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

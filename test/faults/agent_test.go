// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"context"
	"encoding/json"
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

// agent is a podwall-agent process in node1.
type agent struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string // file name
	http  *http.Client
	ended chan struct{}
	left  bool // the test has ended it
}

// launch starts a program in a namespace. It ends with the test.
func launch(t *testing.T, ns *netns.NS, program string, args ...string) *agent {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "agent.log"))
	check(t, err)
	defer log.Close() // the process has its own descriptor
	a := newAgent(t, ns, exec.Command(program, args...), log)
	started := make(chan error, 1)
	go func() { // its thread stays: the death signal comes when that ends
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
	check(t, <-started)
	t.Cleanup(a.end)
	return a
}

// newAgent prepares a process in a namespace, without starting it.
func newAgent(t *testing.T, ns *netns.NS, cmd *exec.Cmd, log *os.File) *agent {
	a := &agent{t: t, cmd: cmd, log: log.Name(), ended: make(chan struct{})}
	a.cmd.Env = append(os.Environ(), "NODE_NAME=node1")
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	a.http = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) { return ns.Dial(ctx, network, addr) }}}
	return a
}

func (a *agent) end() {
	if !a.left {
		a.stop()
	}
	if a.t.Failed() {
		text, _ := os.ReadFile(a.log)
		a.t.Logf("log of the agent:\n%s", text[max(0, len(text)-6000):])
	}
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
	check(a.t, a.cmd.Process.Kill())
	a.exits(-1)
}

func (a *agent) exits(want int) {
	a.t.Helper()
	a.left = true
	select {
	case <-a.ended:
	case <-time.After(patience):
		_ = a.cmd.Process.Kill() // it may have ended just now
		<-a.ended
		a.t.Fatal("the agent did not end")
	}
	if got := a.cmd.ProcessState.ExitCode(); got != want {
		a.t.Errorf("the agent ended with status %d, want %d", got, want)
	}
}

// status asks for the status page; ok is false while nobody answers.
func (a *agent) status() (s observe.Status, ok bool) {
	resp, err := a.http.Get("http://127.0.0.1:20244/statusz")
	if err != nil {
		return s, false
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s) == nil
}

// get asks for a page and returns the status code, 0 if nobody answers.
func (a *agent) get(path string) int {
	resp, err := a.http.Get("http://127.0.0.1:20244" + path)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close() // only the code counts
	return resp.StatusCode
}

// until waits for a status, as long as the process lives.
func (a *agent) until(what string, holds func(observe.Status) bool) observe.Status {
	a.t.Helper()
	var last observe.Status
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s, ok := a.status()
		if ok && holds(s) {
			return s
		}
		last = s
		select {
		case <-a.ended:
			a.t.Fatalf("the agent ended while the test waited for %s", what)
		default:
		}
	}
	a.t.Fatalf("the agent does not say %s; not ready: %q, problems: %+v", what, last.NotReady, last.Problems)
	return last
}

func (a *agent) ready() *agent {
	a.t.Helper()
	a.until("that it is ready", func(s observe.Status) bool { return s.Ready })
	return a
}

// failures counts the failed passes in the log.
func (a *agent) failures() int {
	a.t.Helper()
	text, err := os.ReadFile(a.log)
	check(a.t, err)
	return strings.Count(string(text), "enforcing failed")
}

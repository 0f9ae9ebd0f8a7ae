// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package launch runs an agent, or a program beside it, for a test: in a network
// namespace, until the test ends. It fails the test when the process does not end
// as it should, and shows the log of a test that failed. It knows the port of an
// agent's pages and nothing of what is on them. Tests of real processes stand on
// it; measurements have package process below package measure.
package launch

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
)

// Process is a program that runs for a test.
type Process struct {
	t        *testing.T
	name     string
	patience time.Duration
	cmd      *exec.Cmd
	log      string // file name
	http     *http.Client
	ended    chan struct{}
	left     bool // the test has taken notice of its end
}

// Start starts a program in a namespace. It ends with the test, and must then end
// as on a node: by SIGTERM, with status 0. Patience is for all that the test waits
// for.
func Start(t *testing.T, ns *netns.NS, name string, patience time.Duration, cmd *exec.Cmd) *Process {
	t.Helper()
	p := Prepare(t, ns, name, patience, cmd)
	if err := ns.Start(cmd); err != nil {
		t.Fatalf("starting the %s: %v", name, err)
	}
	p.Started()
	return p
}

// Prepare is Start for a caller who starts the command in a way of its own, and
// calls Started then.
func Prepare(t *testing.T, ns *netns.NS, name string, patience time.Duration, cmd *exec.Cmd) *Process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() }) // the process has its own descriptor
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.Stdout, cmd.Stderr = log, log
	return &Process{t: t, name: name, patience: patience, cmd: cmd, log: log.Name(), ended: make(chan struct{}),
		http: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: ns.Dial}}}
}

// Started says that the process runs.
func (p *Process) Started() {
	go func() {
		_ = p.cmd.Wait() // how it ended is in cmd.ProcessState
		close(p.ended)
	}()
	p.t.Cleanup(p.atEnd)
}

func (p *Process) atEnd() {
	if !p.left {
		p.Stop()
	}
	if p.t.Failed() {
		p.t.Logf("log of the %s:\n%s", p.name, p.Log())
	}
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Signal sends one to the process, which may have ended by itself.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Pid returns the number of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Stop ends the process as a node does and wants status 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.Exits(0)
}

// Kill ends the process, which must still run, as a crash does.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatalf("killing the %s: %v", p.name, err)
	}
	p.Exits(-1) // by a signal
}

// Exits waits for the end of the process and wants a status.
func (p *Process) Exits(want int) {
	p.t.Helper()
	p.left = true
	select {
	case <-p.ended:
	case <-time.After(p.patience):
		p.Signal(syscall.SIGKILL)
		<-p.ended
		p.t.Fatalf("%s: it did not end", p.name)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		p.t.Errorf("%s: exit status %d, want %d", p.name, got, want)
	}
}

// Log is all that the process has written so far.
func (p *Process) Log() string {
	p.t.Helper()
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Errorf("reading the log of the %s: %v", p.name, err)
	}
	return string(text)
}

// Get asks an agent for a page on its usual port. While nobody answers the status
// is 0.
func (p *Process) Get(path string) (status int, body string) {
	return p.GetURL("http://127.0.0.1:20244" + path)
}

// GetURL asks for any page from inside the namespace.
func (p *Process) GetURL(url string) (status int, body string) {
	resp, err := p.http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// Await waits until a condition holds, as long as the process lives. Why says why
// it does not hold, for the failure.
func (p *Process) Await(what string, holds func() bool, why func() string) {
	p.t.Helper()
	for deadline := time.Now().Add(p.patience); time.Now().Before(deadline); {
		if holds() {
			return
		}
		select {
		case <-p.ended:
			p.t.Fatalf("%s: it ended while the test waited for %s", p.name, what)
		case <-time.After(5 * time.Millisecond):
		}
	}
	p.t.Fatalf("%s: no %s within %s: %s", p.name, what, p.patience, why())
}

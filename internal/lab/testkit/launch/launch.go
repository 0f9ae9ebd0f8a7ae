// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package launch runs an agent, or a program beside it, for a test, by package
// process: in a network namespace, until the test ends. It fails the test when
// the process does not end as it should, and shows the log of a test that failed.
// It knows the port of an agent's pages and nothing of what is on them.
package launch

import (
	"context"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/process"
)

// Process is a program that runs for a test.
type Process struct {
	t        *testing.T
	patience time.Duration
	run      *process.Process
	http     *http.Client
	left     bool // the test has taken notice of its end
}

// Start starts a program in a namespace. It ends with the test, and must then end
// as on a node: by SIGTERM, with status 0. Patience is for all that the test waits
// for.
func Start(t *testing.T, ns *netns.NS, name string, patience time.Duration, cmd *exec.Cmd) *Process {
	t.Helper()
	return StartBy(t, ns, name, patience, cmd, ns.Start)
}

// StartBy is Start for a caller who starts the command in a way of its own. The
// namespace is where its pages are.
func StartBy(t *testing.T, ns *netns.NS, name string, patience time.Duration, cmd *exec.Cmd,
	start func(*exec.Cmd) error) *Process {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	run, err := process.Start(cmd, process.Options{Name: name, Log: filepath.Join(t.TempDir(), "log"), NS: ns,
		Start: start})
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, patience: patience, run: run,
		http: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: ns.Dial}}}
	t.Cleanup(p.atEnd)
	return p
}

func (p *Process) atEnd() {
	if !p.left {
		p.Stop()
	}
	if p.t.Failed() {
		p.t.Logf("log of the %s:\n%s", p.run.Name(), p.Log())
	}
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.run.Ended() }

// Signal sends one to the process, which may have ended by itself.
func (p *Process) Signal(s syscall.Signal) { _ = p.run.Signal(s) }

// PID is the number of the process.
func (p *Process) PID() int { return p.run.PID() }

// Stop ends the process as a node does and wants status 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	p.Exits(0)
}

// Kill ends the process, which must still run, as a crash does.
func (p *Process) Kill() {
	p.t.Helper()
	if err := p.run.Signal(syscall.SIGKILL); err != nil {
		p.t.Fatalf("killing the %s: %v", p.run.Name(), err)
	}
	p.Exits(-1) // by a signal
}

// Exits waits for the end of the process and wants a status.
func (p *Process) Exits(want int) {
	p.t.Helper()
	p.left = true
	if err := p.run.EndWithin(p.patience); err != nil {
		p.t.Fatal(err)
	}
	if got := p.run.ExitCode(); got != want {
		p.t.Errorf("%s: exit status %d, want %d", p.run.Name(), got, want)
	}
}

// Log is all that the process has written so far.
func (p *Process) Log() string {
	p.t.Helper()
	text, err := p.run.Log()
	if err != nil {
		p.t.Error(err)
	}
	return string(text)
}

// Get asks an agent for a page on its usual port. While nobody answers the status
// is 0.
func (p *Process) Get(path string) (status int, body string) {
	return p.GetURL(process.Agent + path)
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
	w := process.Wait{For: what, Limit: p.patience, Pause: 5 * time.Millisecond, Why: why}
	// The test's own context would refuse a wait in a cleanup.
	err := w.Until(context.Background(), func(context.Context) (bool, error) { return holds(), nil }, p.run)
	if err != nil {
		p.t.Fatal(err)
	}
}

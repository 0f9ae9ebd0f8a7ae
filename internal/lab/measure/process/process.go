// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package process runs the programs of a measurement: agents, proxies, servers,
// each in a network namespace. It starts them, waits until they are ready, says
// what they said last when they fail, reads what they cost, and ends them with
// all that they started. It knows no program, and never touches a process that
// it did not start. All measurements below package measure stand on it.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
)

const (
	// patience is the longest wait for anything: a big cluster on a busy machine.
	// Nobody waits so long when all is well.
	patience = 2 * time.Minute
	glance   = 2 * time.Millisecond
	grace    = 30 * time.Second
)

// Process is a program that runs in a namespace, in a process group of its own.
type Process struct {
	name    string
	cmd     *exec.Cmd
	log     string       // file name
	pages   *http.Client // asks inside the namespace
	started time.Time
	ended   chan struct{}
	err     error // how it ended; valid after ended is closed
}

// Start starts a program, with a log of its own in the directory. The caller must
// Stop it; it ends with this program too. The name is for errors.
func Start(ns *netns.NS, dir, name string, cmd *exec.Cmd) (*Process, error) {
	log, err := os.CreateTemp(dir, "*.log")
	if err != nil {
		return nil, fmt.Errorf("making the log of %s: %w", name, err)
	}
	defer log.Close() // the process has its own descriptor
	p := &Process{name: name, cmd: cmd, log: log.Name(), ended: make(chan struct{})}
	p.pages = &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: ns.Dial}}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.started = time.Now()
	if err := ns.Start(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Run runs a program in a namespace to its end. What it says on its standard
// error, if the caller does not take that, is in the error.
func Run(ns *netns.NS, cmd *exec.Cmd) error {
	var said bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &said
	}
	if err := ns.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w\n%s", err, last(said.Bytes()))
	}
	return nil
}

// Stop asks the process to end, and returns when it and all that it started have
// been ended, unless they left its group. One that has to be killed is an error.
func (p *Process) Stop() error {
	p.pages.CloseIdleConnections()
	p.signal(syscall.SIGTERM)
	defer p.signal(syscall.SIGKILL) // children that stayed
	select {
	case <-p.ended:
		return nil
	case <-time.After(grace):
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
	return fmt.Errorf("stopping %s: it did not end within %s", p.name, grace)
}

// StopAll stops all, the youngest first.
func StopAll(list []*Process) error {
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		errs = append(errs, list[i].Stop())
	}
	return errors.Join(errs...)
}

// signal goes to the whole group. There may be nobody any more.
func (p *Process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// Lives is an error if one of the processes has ended, with its last lines.
func Lives(list ...*Process) error {
	for _, p := range list {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended by itself: %v\n%s", p.name, p.err, p.Tail())
		default:
		}
	}
	return nil
}

// Until returns when something holds. It is an error if that fails or takes
// minutes, or if one of the processes ends; what they said last is in it.
func Until(ctx context.Context, what string, holds func(context.Context) (bool, error), list ...*Process) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ok, err := holds(limit)
		if ok && err == nil {
			return nil
		}
		if err := Lives(list...); err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if err = errors.Join(err, limit.Err()); err != nil {
			return fmt.Errorf("waiting for %s: %w%s", what, err, tails(list))
		}
		select {
		case <-limit.Done():
		case <-time.After(glance):
		}
	}
}

func tails(list []*Process) string {
	text := ""
	for _, p := range list {
		text += "\n" + p.name + " said last:\n" + p.Tail()
	}
	return text
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Name is what the process is called in errors.
func (p *Process) Name() string { return p.name }

// Started is when the process was started, by this program's clock.
func (p *Process) Started() time.Time { return p.started }

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log is all that the process has written so far.
func (p *Process) Log() ([]byte, error) {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return nil, fmt.Errorf("reading the log of %s: %w", p.name, err)
	}
	return text, nil
}

// Tail is the last lines that the process has written, for an error.
func (p *Process) Tail() string {
	text, err := p.Log()
	if err != nil {
		return err.Error()
	}
	return last(text)
}

func last(text []byte) string {
	const lines = 20
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return "\t" + string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n\t")))
}

// CPU is the processor time of all threads of the process so far. The kernel's
// clock of a process counts nanoseconds, where /proc/PID/stat has ticks
// (clock_getcpuclockid(3)).
func (p *Process) CPU() (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED of linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(^int32(p.PID())<<3|scheduled, &t); err != nil {
		return 0, fmt.Errorf("reading the processor time of %s: %w", p.name, err)
	}
	return time.Duration(t.Nano()), nil
}

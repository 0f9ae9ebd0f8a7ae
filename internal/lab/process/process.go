// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package process runs long-lived programs: agents, proxies, servers, most of
// them in a network namespace. It starts them, collects what they write, waits
// until something holds as long as they live, says what they wrote last when that
// fails, and ends them. It never touches a process that it did not start, and a
// process that has been stopped leaves nothing behind. Of the programs it knows
// one thing: where an agent answers. Tests have package launch on top of it.
package process

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
)

// grace is how long a process may take to end after it was asked to. It is long
// since the machine may be busy.
const grace = 30 * time.Second

// Options say how a program runs. Name and Log are needed.
type Options struct {
	// Name is for errors.
	Name string
	// Log is the file that gets all output, behind what it has. With a * in its
	// last part it is a new file, named as os.CreateTemp does.
	Log string
	// NS is the network namespace to run in; nil means the caller's. A command
	// in another namespace is killed when this program ends, unless its
	// SysProcAttr says otherwise.
	NS *netns.NS
	// Start starts the command in a way of its own; NS is then only where its
	// pages are.
	Start func(*exec.Cmd) error
	// Group gives the process a group of its own. All that it started and that
	// stayed in the group is killed when it ends.
	Group bool
	// Ask asks the process to end; nil means SIGTERM.
	Ask func() error
}

// start starts the command where the options say.
func (o Options) start(cmd *exec.Cmd) error {
	switch {
	case o.Start != nil:
		return o.Start(cmd)
	case o.NS != nil:
		return o.NS.Start(cmd)
	}
	return cmd.Start()
}

// openLog opens the file that gets the output.
func (o Options) openLog() (*os.File, error) {
	if dir, name := filepath.Split(o.Log); strings.Contains(name, "*") {
		return os.CreateTemp(dir, name)
	}
	return os.OpenFile(o.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// ownGroup keeps what NS.Start does for a command without attributes.
func (o Options) ownGroup(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		if o.NS != nil {
			cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		}
	}
	cmd.SysProcAttr.Setpgid = true
}

// Process is a program that was started. Its methods may be called from several
// goroutines.
type Process struct {
	options Options
	cmd     *exec.Cmd
	log     string       // file name
	pages   *http.Client // asks inside the namespace
	started time.Time
	asked   sync.Once
	ended   chan struct{}
	err     error // how it ended; valid after ended is closed

	mu     sync.Mutex // held while the group gets a signal
	reaped bool       // the number of the group may belong to others
}

// Start starts a program. The caller must end it: by Stop, EndWithin or Kill.
func Start(cmd *exec.Cmd, o Options) (*Process, error) {
	log, err := o.openLog()
	if err != nil {
		return nil, fmt.Errorf("making the log of %s: %w", o.Name, err)
	}
	defer log.Close() // the process has its own descriptor
	p := &Process{options: o, cmd: cmd, log: log.Name(), pages: client(o.NS), ended: make(chan struct{}),
		started: time.Now()}
	cmd.Stdout, cmd.Stderr = log, log
	if o.Group {
		o.ownGroup(cmd)
	}
	if err := o.start(cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", o.Name, err)
	}
	go p.wait()
	return p, nil
}

// wait runs until the process has ended. Whoever ends the process waits for it.
func (p *Process) wait() {
	defer close(p.ended)
	if p.options.Group {
		p.endGroup()
	}
	p.err = p.cmd.Wait()
}

// endGroup returns when the process has ended, and kills what stayed in its
// group. As long as nobody has waited for the process its number is its own, so
// that nobody else can be hit.
func (p *Process) endGroup() {
	for errors.Is(unix.Waitid(unix.P_PID, p.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		continue // a signal to this program came between
	}
	_ = p.Signal(syscall.SIGKILL) // nobody may have stayed
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaped = true
}

// Signal sends a signal to the process, or to its group if it has one. The error
// is os.ErrProcessDone if it has ended.
func (p *Process) Signal(s syscall.Signal) error {
	if !p.options.Group {
		return p.cmd.Process.Signal(s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return os.ErrProcessDone
	}
	return syscall.Kill(-p.PID(), s)
}

// Ask asks the process to end, and does not wait. Further calls do nothing: many
// programs end at once, and badly, when they are asked twice.
func (p *Process) Ask() {
	p.asked.Do(func() {
		p.pages.CloseIdleConnections()
		// In both cases an error says that the process has ended by itself.
		if p.options.Ask != nil {
			_ = p.options.Ask()
			return
		}
		_ = p.Signal(syscall.SIGTERM)
	})
}

// Stop asks the process to end and returns when it has. One that had to be killed
// is an error; how it ended otherwise is not, see Err.
func (p *Process) Stop() error {
	p.Ask()
	return p.EndWithin(grace)
}

// EndWithin returns when the process has ended. It is killed, which is an error,
// if that takes too long.
func (p *Process) EndWithin(limit time.Duration) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	p.Kill()
	return fmt.Errorf("stopping %s: it did not end within %s", p.options.Name, limit)
}

// Kill kills the process and returns when it is gone. It may have ended before.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.ended
	p.pages.CloseIdleConnections()
}

// StopAll stops all, the youngest first.
func StopAll(list []*Process) error {
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		errs = append(errs, list[i].Stop())
	}
	return errors.Join(errs...)
}

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err says how the process ended: nil means with status 0. It waits for the end.
func (p *Process) Err() error {
	<-p.ended
	return p.err
}

// ExitCode is the status with which the process ended, -1 if a signal ended it. It
// waits for the end.
func (p *Process) ExitCode() int {
	<-p.ended
	return p.cmd.ProcessState.ExitCode()
}

// Name is what the process is called in errors.
func (p *Process) Name() string { return p.options.Name }

// Started is when the process was started, by this program's clock.
func (p *Process) Started() time.Time { return p.started }

// PID is the number of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// CPU is the processor time of all threads of the process so far. The kernel's
// clock of a process counts nanoseconds, where /proc/PID/stat has ticks
// (clock_getcpuclockid(3)).
func (p *Process) CPU() (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED of linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(^int32(p.PID())<<3|scheduled, &t); err != nil {
		return 0, fmt.Errorf("reading the processor time of %s: %w", p.options.Name, err)
	}
	return time.Duration(t.Nano()), nil
}

// Memory is the resident memory of the process in bytes: now, and at its highest.
func (p *Process) Memory() (now, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, 0, fmt.Errorf("reading the memory of %s: %w", p.options.Name, err)
	}
	now, err = Kilobytes(string(text), "VmRSS:")
	if err != nil {
		return 0, 0, err
	}
	peak, err = Kilobytes(string(text), "VmHWM:")
	return now, peak, err
}

// Kilobytes returns the bytes of a line of a file in /proc, as "VmRSS:   1234 kB".
func Kilobytes(text, name string) (float64, error) {
	_, rest, ok := strings.Cut(text, name)
	fields := strings.Fields(rest)
	if !ok || len(fields) < 2 || fields[1] != "kB" {
		return 0, fmt.Errorf("reading %s there is no such line in kB", name)
	}
	v, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return 0, fmt.Errorf("reading %s %w", name, err)
	}
	return v * 1024, nil
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
)

// grace is the time that a process has to end by itself.
const grace = 10 * time.Second

// process runs in a namespace, with a group of its own, until stop.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string // file name
	ended chan struct{}
	err   error // how it ended; valid after ended is closed
}

// start starts a process that also ends when this program dies.
//
// The kernel sends the death signal when the thread ends that started the
// process, and threads end here before the program does: connections to the API
// server are opened on threads that are thrown away. So this thread stays.
func start(ns *netns.NS, name, log string, cmd *exec.Cmd) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("making the log of %s: %w", name, err)
	}
	defer out.Close() // the process has its own descriptor
	p := &process{name: name, cmd: cmd, log: log, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		err := ns.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				p.err = cmd.Wait()
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return p, nil
}

// run runs a command in a namespace to its end, on one thread as start does.
func run(ns *netns.NS, cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return ns.Do(cmd.Run)
}

// signal goes to the process and all that it started, unless they left its
// group. There may be nobody any more.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// stop asks the process to end, and returns when it and all that it started are
// told so. One that does not want to is killed, which is an error.
func (p *process) stop() error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		p.signal(syscall.SIGKILL) // children that stayed
		return nil
	case <-time.After(grace):
	}
	p.signal(syscall.SIGKILL)
	<-p.ended
	return fmt.Errorf("stopping %s: it did not end within %s", p.name, grace)
}

// lives is an error if the process has ended.
func (p *process) lives() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended by itself: %v\n%s", p.name, p.err, p.tail())
	default:
		return nil
	}
}

// tail returns the last lines of the log, for an error message.
func (p *process) tail() string {
	const lines = 20
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

// stopAll stops all, the youngest first.
func stopAll(list []*process) error {
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		errs = append(errs, list[i].stop())
	}
	return errors.Join(errs...)
}

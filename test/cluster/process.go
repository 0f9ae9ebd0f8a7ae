// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a program of the cluster.
type Process struct {
	name  string
	log   string // file name
	cmd   *exec.Cmd
	ended chan struct{}
}

// launch starts a program with its output in a file. How says how: in a node, or
// in the network of the control plane.
func launch(how func(*exec.Cmd) error, name, log string, cmd *exec.Cmd) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close() // the process has its own descriptor
	cmd.Stdout, cmd.Stderr = file, file
	if err := how(cmd); err != nil {
		return nil, err
	}
	p := &Process{name: name, log: log, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	return p, nil
}

// Pid returns the number of the process, as this program sees it.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Stop asks the process to end, kills it if it does not within the patience, and
// returns when it is gone.
func (p *Process) Stop(patience time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Kill()
	}
}

// Kill ends the process and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.ended
}

// Log returns what the process has written.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// failed says why a process that should run does not; nil while it runs.
func (p *Process) failed() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended: %s\n%s", p.name, p.cmd.ProcessState, tail(p.log))
	default:
		return nil
	}
}

// tail returns the last lines of a file, for an error message.
func tail(name string) string {
	const lines = 15
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return filepath.Base(name) + ":\n" + string(bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
}

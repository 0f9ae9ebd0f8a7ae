// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/podwall/podwall/internal/lab"
)

const (
	patience   = 2 * time.Minute // a big cluster on a busy machine
	glance     = 10 * time.Millisecond
	grace      = 10 * time.Second
	readyURL   = "http://127.0.0.1:20244/readyz"
	oneRequest = 5 * time.Second
)

// process is a program that runs inside a node.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   *os.File
	ended chan struct{}
}

// launch starts a program inside a node. Its log is a file of the directory.
func launch(at *lab.Endpoint, name, dir string, cmd *exec.Cmd) (*process, error) {
	log, err := os.CreateTemp(dir, "*.log")
	if err != nil {
		return nil, fmt.Errorf("making the log of %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: log, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	// The process's children end with it: they are of its group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := at.NS.Start(cmd); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), log.Close())
	}
	go func() {
		_ = cmd.Wait() // those who want to know how it ended ask ProcessState
		close(p.ended)
	}()
	return p, nil
}

// until returns when done says so, or with what the program said last.
func (p *process) until(ctx context.Context, what string, done func(context.Context) bool) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !done(limit) {
		select {
		case <-p.ended:
			return fmt.Errorf("waiting for %s of %s: it ended\n%s", what, p.name, p.tail())
		case <-limit.Done():
			return fmt.Errorf("waiting for %s of %s: %w\n%s", what, p.name, limit.Err(), p.tail())
		case <-time.After(glance):
		}
	}
	return nil
}

// stop ends the program and what it started, kindly first.
func (p *process) stop() error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(grace):
	}
	p.signal(syscall.SIGKILL) // also what the program left behind
	<-p.ended
	return p.log.Close()
}

// signal goes to the whole group; it may be gone.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// tail returns the last lines of the log.
func (p *process) tail() string {
	const lines = 20
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	list := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return "\t" + string(bytes.Join(list[max(0, len(list)-lines):], []byte("\n\t")))
}

// program runs the agent of a node until it enforces what the manifests say,
// and ends it. What it wrote into the kernel stays.
func program(ctx context.Context, at *lab.Endpoint, agent, dir, manifests string, args []string) (err error) {
	args = append([]string{"--manifests", manifests, "--hostname-override", at.Name, "--iptables-sync-period=1h", "--log-format=text", "--gate-socket="}, args...)
	p, err := launch(at, "the agent of "+at.Name, dir, exec.Command(agent, args...))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	client := &http.Client{Timeout: oneRequest, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return at.NS.Dial(ctx, network, addr)
		},
	}}
	return p.until(ctx, "the rules", func(ctx context.Context) bool { return ready(ctx, client) })
}

func ready(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, readyURL, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close() // nothing of it is wanted
	return resp.StatusCode == http.StatusOK
}

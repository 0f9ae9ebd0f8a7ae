// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
)

const (
	base = "http://127.0.0.1:20244" // where the agent answers in its namespace
	// patience is the longest wait for anything; nobody waits so long when all is well.
	patience = 2 * time.Minute
	glance   = 2 * time.Millisecond
)

// program is an agent as it is started on a node: the seed document's own
// arguments, and where to find the cluster.
type program struct {
	path, kubeconfig, dir string
	ns                    *netns.NS
	extra                 []string
}

func (p program) command(more ...string) *exec.Cmd {
	args := []string{"--run-router=false", "--run-firewall=true", "--run-service-proxy=false", "--kubeconfig=" + p.kubeconfig,
		"--iptables-sync-period=1s", "--cache-sync-timeout=5m",
		"--hostname-override=" + nodeName, "--gate-socket=" + filepath.Join(p.dir, "gate.sock")} // nodes of a lab share a file system
	args = append(append(args, p.extra...), more...)
	return exec.Command(p.path, args...)
}

// agent is a running one.
type agent struct {
	cmd     *exec.Cmd
	log     string
	started time.Time
	http    *http.Client
	ended   chan struct{}
}

// start starts the agent; it is not ready yet.
func (p program) start() (*agent, error) {
	log, err := os.Create(filepath.Join(p.dir, "agent.log"))
	if err != nil {
		return nil, fmt.Errorf("making the agent's log: %w", err)
	}
	defer log.Close() // the process has its own
	a := &agent{cmd: p.command(), log: log.Name(), ended: make(chan struct{})}
	a.cmd.Stdout, a.cmd.Stderr = log, log
	a.http = &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return p.ns.Dial(ctx, network, addr)
		},
	}}
	a.started = time.Now()
	if err := p.ns.Start(a.cmd); err != nil {
		return nil, fmt.Errorf("starting the agent: %w", err)
	}
	go func() {
		_ = a.cmd.Wait() // how it ended does not matter
		close(a.ended)
	}()
	return a, nil
}

// stop ends the process and waits for its end.
func (a *agent) stop() error {
	a.http.CloseIdleConnections()
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-a.ended:
		return nil
	case <-time.After(20 * time.Second):
	}
	_ = a.cmd.Process.Kill() // it may have ended just now
	<-a.ended
	return errors.New("ending the agent: it did not end by itself")
}

// cleanup removes what the agent made in the kernel.
func (p program) cleanup() error {
	cmd := p.command("--cleanup-config")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := p.ns.Start(cmd); err != nil {
		return fmt.Errorf("starting the clean-up: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("cleaning up: %w\n%s", err, out.Bytes())
	}
	return nil
}

// get asks for a page of the agent.
func (a *agent) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking for %s: status %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// status is the part of the status page that is used here.
type status struct {
	Elements, Sets, Chains, Rules, Policies, IsolatedPods, Pods int
	LastApply                                                   struct {
		Time    time.Time
		Seconds float64
		Kind    string
	}
}

func (a *agent) status(ctx context.Context) (s status, err error) {
	if err = a.get(ctx, "/statusz", &s); err != nil {
		err = fmt.Errorf("reading the agent's status: %w", err)
	}
	return s, err
}

// until asks again and again, and fails when the agent ends.
func (a *agent) until(ctx context.Context, what string, done func(context.Context) bool) error {
	limit := time.After(patience)
	for !done(ctx) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.ended:
			return fmt.Errorf("waiting until %s: the agent ended\n%s", what, a.tail())
		case <-limit:
			return fmt.Errorf("waiting until %s: not after %s\n%s", what, patience, a.tail())
		case <-time.After(glance):
		}
	}
	return nil
}

// ready returns the time from the start until /readyz says yes.
func (a *agent) ready(ctx context.Context) (time.Duration, error) {
	err := a.until(ctx, "the agent is ready", func(ctx context.Context) bool { return a.get(ctx, "/readyz", nil) == nil })
	return time.Since(a.started), err
}

// said returns when the agent's log has a line with that message.
func (a *agent) said(message string) (time.Time, error) {
	f, err := os.Open(a.log)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the agent's log: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var line struct {
			Time time.Time `json:"time"`
			Msg  string    `json:"msg"`
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == message {
			return line.Time, nil
		}
	}
	return time.Time{}, fmt.Errorf("reading the agent's log: no line says %q", message)
}

func (a *agent) tail() string {
	text, err := os.ReadFile(a.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-3000):])
}

// cpu is the processor time that the process has used, of all of its threads.
// The kernel's clock of a process counts nanoseconds; /proc/PID/stat has the same
// sum in hundredths of a second.
func (a *agent) cpu() (time.Duration, error) {
	const processClock = 2 // CPUCLOCK_SCHED of a whole process
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^a.cmd.Process.Pid)<<3|processClock, &t); err != nil {
		return 0, fmt.Errorf("reading the agent's processor time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// memory returns resident memory and its highest value, in bytes.
func (a *agent) memory() (now, peak float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		return 0, 0, fmt.Errorf("reading the agent's memory: %w", err)
	}
	now, err = kilobytes(string(text), "VmRSS:")
	if err != nil {
		return 0, 0, err
	}
	peak, err = kilobytes(string(text), "VmHWM:")
	return now, peak, err
}

// slab is the kernel's own memory that it cannot give back, in bytes.
func slab() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("reading the kernel's memory: %w", err)
	}
	return kilobytes(string(text), "SUnreclaim:")
}

// kilobytes reads a line as "VmRSS:   1234 kB", in bytes.
func kilobytes(text, name string) (float64, error) {
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

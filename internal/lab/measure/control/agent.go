// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/process"
)

// program is an agent as it is started on a node: the reference setup's own
// arguments, and where to find the cluster.
type program struct {
	path, kubeconfig, dir string
	ns                    *netns.NS
	extra                 []string
}

func (p program) command(more ...string) *exec.Cmd {
	args := []string{"--run-router=false", "--run-firewall=true", "--run-service-proxy=false",
		"--kubeconfig=" + p.kubeconfig,
		"--iptables-sync-period=1s", "--cache-sync-timeout=5m",
		// nodes of a lab share a file system
		"--hostname-override=" + nodeName, "--gate-socket=" + filepath.Join(p.dir, "gate.sock")}
	args = append(append(args, p.extra...), more...)
	return exec.Command(p.path, args...)
}

// agent is a running one.
type agent struct{ *process.Process }

// start starts the agent; it is not ready yet.
func (p program) start() (*agent, error) {
	a, err := process.Start(p.command(), process.Options{Name: "the agent", Log: filepath.Join(p.dir, "*.log"),
		NS: p.ns, Group: true})
	if err != nil {
		return nil, err
	}
	return &agent{a}, nil
}

// cleanup removes what the agent made in the kernel.
func (p program) cleanup() error {
	if err := process.Run(p.ns, p.command("--cleanup-config")); err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	return nil
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
	err = a.Page(ctx, "/statusz", &s)
	return s, err
}

// ready returns the time from the start until /readyz says yes.
func (a *agent) ready(ctx context.Context) (time.Duration, error) {
	err := process.Ready(ctx, a.Process)
	return time.Since(a.Started()), err
}

// said waits until the agent's log has a line with that message, and returns
// the time of the line.
func (a *agent) said(ctx context.Context, message string) (at time.Time, err error) {
	err = process.Until(ctx, fmt.Sprintf("a line that says %q", message), func(context.Context) (bool, error) {
		text, err := a.Log()
		at = logged(text, message)
		return !at.IsZero(), err
	}, a.Process)
	return at, err
}

// logged returns the time of the first line with that message, or zero.
func logged(log []byte, message string) time.Time {
	for text := range bytes.Lines(log) {
		var line struct {
			Time time.Time `json:"time"`
			Msg  string    `json:"msg"`
		}
		if json.Unmarshal(text, &line) == nil && line.Msg == message {
			return line.Time
		}
	}
	return time.Time{}
}

// slab is the kernel's own memory that it cannot give back, in bytes.
func slab() (float64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("reading the kernel's memory: %w", err)
	}
	return process.Kilobytes(string(text), "SUnreclaim:")
}

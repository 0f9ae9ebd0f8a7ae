// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/process"
)

// program runs the agent of a node until it enforces what the manifests say,
// and ends it. What it wrote into the kernel stays.
func program(ctx context.Context, at *lab.Endpoint, agent, dir, manifests string, args []string) (err error) {
	args = append([]string{"--manifests", manifests, "--hostname-override", at.Name, "--iptables-sync-period=1h",
		"--log-format=text", "--gate-socket="}, args...)
	p, err := process.Start(exec.Command(agent, args...),
		process.Options{Name: "the agent of " + at.Name, Log: filepath.Join(dir, "*.log"), NS: at.NS, Group: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	return process.Ready(ctx, p)
}

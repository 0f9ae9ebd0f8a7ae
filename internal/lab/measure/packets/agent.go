// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"context"
	"errors"
	"os/exec"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/process"
)

// program runs the agent of a node until it enforces what the manifests say,
// and ends it. What it wrote into the kernel stays.
func program(ctx context.Context, at *lab.Endpoint, agent, dir, manifests string, args []string) (err error) {
	args = append([]string{"--manifests", manifests, "--hostname-override", at.Name, "--iptables-sync-period=1h", "--log-format=text", "--gate-socket="}, args...)
	p, err := process.Start(at.NS, dir, "the agent of "+at.Name, exec.Command(agent, args...))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	return process.Ready(ctx, p)
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/podwall/podwall/internal/filter"
	"golang.org/x/sys/unix"
)

// Skeleton loads the table of a closed node that knows no pod, if the network
// namespace has no table of ours. The start gate calls it for a pod that starts
// before the agent has ever run since the node booted: it is the one exception
// to invariant 2 (no kernel change before the first sync), and it opens nothing.
// The agent takes the table over like one that an earlier process left.
func Skeleton(log *slog.Logger) (loaded bool, err error) {
	alone, err := net.Listen("unix", "@podwall-skeleton")
	if errors.Is(err, unix.EADDRINUSE) {
		return false, nil // somebody else does it right now
	}
	if err != nil {
		return false, fmt.Errorf("taking the lock for the skeleton: %w", err)
	}
	defer alone.Close()
	d, err := Open(Options{}, log)
	if err != nil {
		return false, err
	}
	defer d.Close()
	var report Report
	if err := d.read(&report); err != nil || d.actual != nil {
		return false, err
	}
	if err := d.look(); err != nil {
		return false, err
	}
	return true, d.make(&filter.Program{}, &report)
}

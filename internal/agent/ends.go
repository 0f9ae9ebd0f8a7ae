// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"log/slog"
	"time"
)

// stopLimit is how long the agent may take to end. Commits and everything that reads the kernel end with the
// context, but a pass computes first, and that takes seconds on a node where many namespaces use their whole
// budgets, which nobody needs any more. Such an end is that of a process that is killed: nothing is missing
// afterwards.
const stopLimit = 800 * time.Millisecond

// endsWith returns what run returns. If run has not returned when the limit is over since ctx ended, it returns
// nil and leaves run to the end of the process.
func endsWith(ctx context.Context, limit time.Duration, log *slog.Logger, run func() error) error {
	done := make(chan error, 1)
	go func() { done <- run() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		log.Info("podwall-agent stops on a signal and does not wait for a pass that still computes; its rules stay " +
			"in the kernel")
		return nil
	}
}

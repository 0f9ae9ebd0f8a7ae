// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"

	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// NotEnforcing says why nobody enforces in this network namespace: there is no
// table of ours, or no agent that keeps it. It is empty if both are there.
func NotEnforcing(ctx context.Context) (why string, err error) {
	conn, err := ruleset.Open(0)
	if err != nil {
		return "", unsupported(err)
	}
	_, open, failed := ruleset.Opened(conn)
	exists, err := conn.Exists()
	if err := errors.Join(failed, err, conn.Close()); err != nil {
		return "", unsupported(err)
	}
	if open {
		return "the node was opened on purpose (--close-node ends it)", nil
	}
	if !exists {
		return "its table is not in the kernel", nil
	}
	alive, err := agentLives(ctx)
	if err != nil || alive {
		return "", err
	}
	return "no podwall-agent runs in this network namespace", nil
}

// Gone reports whether no table of ours is in this network namespace.
func Gone() (bool, error) {
	conn, err := ruleset.Open(0)
	if err != nil {
		return false, unsupported(err)
	}
	exists, err := conn.Exists()
	return !exists, errors.Join(unsupported(err), conn.Close())
}

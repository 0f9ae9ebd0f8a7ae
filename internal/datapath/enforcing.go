// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"

	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// NotEnforcing returns why podwall does not enforce in this network namespace: its table is missing, or no
// agent maintains it. It is empty if both exist.
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

// Gone reports whether this network namespace has no table of ours.
func Gone() (bool, error) {
	conn, err := ruleset.Open(0)
	if err != nil {
		return false, unsupported(err)
	}
	exists, err := conn.Exists()
	return !exists, errors.Join(unsupported(err), conn.Close())
}

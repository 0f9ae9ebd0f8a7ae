// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"log/slog"
	"net/netip"
	"os"

	"github.com/podwall/podwall/internal/datapath"
)

// skeleton closes a pod that is wired and that no agent knows yet.
func skeleton(ctx context.Context, links []string, addrs []netip.Addr) error {
	return datapath.Skeleton(ctx, links, addrs, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

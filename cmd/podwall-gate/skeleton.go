// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/podwall/podwall/internal/datapath"
)

// skeleton closes a pod on a node on which no agent answers.
func skeleton(ctx context.Context, links []string) error {
	return datapath.Skeleton(ctx, links, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

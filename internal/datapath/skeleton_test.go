// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"log/slog"
	"strings"
	"testing"
)

func TestTheSkeletonIsClosedAndTakenOver(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		if loaded, err := Skeleton(log); err != nil || !loaded {
			t.Fatalf("loaded %t, %v", loaded, err)
		}
		before := listing(t)
		if !strings.Contains(before, "iifname != @open-links jump known-source") {
			t.Errorf("the skeleton does not close unknown sources:\n%s", before)
		}
		if loaded, err := Skeleton(log); err != nil || loaded {
			t.Errorf("a second time: loaded %t, %v", loaded, err)
		}
		healthy(t, open(t, Options{}), isolated())
		if loaded, err := Skeleton(log); err != nil || loaded {
			t.Errorf("beside the agent's table: loaded %t, %v", loaded, err)
		}
	})
}

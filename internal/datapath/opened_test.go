// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"log/slog"
	"strings"
	"testing"
)

// A pod that starts on a node that was opened on purpose does not close it.
func TestTheSkeletonLeavesAnOpenNodeOpen(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		if err := OpenNode(t.Context(), "a drill", Options{}, log); err != nil {
			t.Fatal(err)
		}
		if err := Skeleton(t.Context(), nil, nil, log); err != nil {
			t.Fatal(err)
		}
		if rules := foreign(t); strings.Contains(rules, "table inet podwall {") {
			t.Errorf("a pod's start closed the node:\n%s", rules)
		}
		nftRun(t, "delete table inet podwall-open")
		if err := Skeleton(t.Context(), nil, nil, log); err != nil {
			t.Fatal(err)
		}
		if rules := foreign(t); !strings.Contains(rules, "table inet podwall {") {
			t.Errorf("without the mark a pod's start leaves the node open:\n%s", rules)
		}
	})
}

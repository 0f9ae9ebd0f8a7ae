// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// A pod that starts on a deliberately opened node does not close it.
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

// A damaged record of a bridge's settings cannot be restored; the node is opened all the same.
func TestASettingThatCannotBePutBackKeepsNoNodeClosed(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		if _, err := d.Apply(t.Context(), isolated("10.244.2.5")); err != nil {
			t.Fatal(err)
		}
		d.settings.keep("lo", "no settings of a bridge")
		if err := ruleset.MarkOpen(d.conn, "a drill"); err != nil {
			t.Fatal(err)
		}
		d.opening.asked = false // as after each change that another program makes
		r, err := d.Apply(t.Context(), isolated("10.244.2.5"))
		if err != nil || !r.Open {
			t.Errorf("open: %t, %v", r.Open, err)
		}
		if rules := foreign(t); strings.Contains(rules, "table inet podwall {") {
			t.Errorf("the rules are still there:\n%s", rules)
		}
	})
}

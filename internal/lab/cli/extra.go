// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/source/manifest"
)

// extraFlags are the ranges from which pods may have further addresses.
type extraFlags struct {
	text   string
	ranges config.Ranges
}

func (x *extraFlags) bind(cmd *cobra.Command) {
	cmd.Flags().StringVar(&x.text, "extra-addresses", "",
		"`RANGES` from which pods may have further addresses, as the agent has it")
}

func (x *extraFlags) parse() (err error) {
	if x.ranges, err = config.ParseRanges(x.text); err != nil {
		return fmt.Errorf("--extra-addresses: %w", err)
	}
	return nil
}

// settle returns the cluster as an agent sees it that knows these nodes: pods have the
// further addresses that they may have. The findings are about those that they do not
// get.
func (x *extraFlags) settle(m *manifest.Result, nodes []*cluster.Node) (*cluster.Snapshot, []cluster.Diagnostic) {
	store := cluster.NewStore()
	store.Allow(cluster.Allowance{Prefixes: x.ranges.Prefixes, Hardware: x.ranges.Hardware})
	store.Update(func(tx *cluster.Tx) {
		tx.ReplaceNodes(nodes)
		tx.ReplacePods(m.Pods)
	})
	snap := m.Snapshot()
	snap.Pods = store.Snapshot().Pods
	return snap, store.Take().Diagnostics
}

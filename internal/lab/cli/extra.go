// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
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

func (x *extraFlags) allowance() cluster.Allowance {
	return cluster.Allowance{Prefixes: x.ranges.Prefixes, Hardware: x.ranges.Hardware, Audit: true}
}

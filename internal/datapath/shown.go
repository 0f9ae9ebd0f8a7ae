// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// shown are the tables of the last commits, for other goroutines than that of Apply; nil for no table.
type shown struct{ judging, bridge atomic.Pointer[nft.Table] }

// Ruleset writes the tables that this process has loaded, in the syntax of nft, each after comments that
// say what differs in the kernel. Any goroutine may call it.
func (d *Datapath) Ruleset(out io.Writer) error {
	return errors.Join(nft.Show(out, ruleset.Table(), d.shown.judging.Load),
		nft.Show(out, ruleset.BridgeTable(), d.shown.bridge.Load))
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// shown are the tables of the last commits, for other goroutines than that of Apply; nil for no table.
type shown struct{ judging, bridge atomic.Pointer[nft.Table] }

// Differences of a table from the kernel's: how many are shown, and how often the table is read to find
// one that stayed the same meanwhile.
const (
	maxDifferences = 50
	comparisons    = 3
)

// Ruleset writes the tables that this process has loaded, in the syntax of nft, each after comments that
// say what differs in the kernel. It reads the kernel's tables over a connection of its own. Any goroutine
// may call it.
func (d *Datapath) Ruleset(out io.Writer) error {
	for _, one := range []struct {
		id   nft.TableID
		last *atomic.Pointer[nft.Table]
	}{{ruleset.Table(), &d.shown.judging}, {ruleset.BridgeTable(), &d.shown.bridge}} {
		table, said := compare(one.id, one.last.Load)
		text := ""
		if table != nil {
			text = table.String()
		}
		if _, err := fmt.Fprintf(out, "%s%s", said, text); err != nil {
			return fmt.Errorf("printing table %s: %w", one.id, err)
		}
	}
	return nil
}

// compare returns the table that was loaded, and comments about what the kernel has. A table that is
// replaced while the kernel is read is compared again.
func compare(id nft.TableID, last func() *nft.Table) (table *nft.Table, said string) {
	for range comparisons {
		table = last()
		actual, err := readFresh(id)
		switch {
		case err != nil:
			return table, fmt.Sprintf("# table %s: not compared with the kernel: %s\n", id, nft.Clip(err.Error()))
		case last() == table:
			return table, differences(id, actual, table)
		}
	}
	return table, fmt.Sprintf("# table %s: not compared with the kernel: it changes all the time\n", id)
}

func readFresh(id nft.TableID) (*nft.Table, error) {
	conn, err := nft.Open(0, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // nothing is written
	return conn.Read()
}

// differences says what an agent would change in the kernel.
func differences(id nft.TableID, actual, table *nft.Table) string {
	if table == nil {
		if actual != nil {
			return fmt.Sprintf("# table %s: the kernel has one, which this agent did not load\n", id)
		}
		return fmt.Sprintf("# table %s: none is loaded\n", id)
	}
	ops := nft.Diff(actual, table)
	if len(ops) == 0 {
		return fmt.Sprintf("# table %s: the kernel has exactly this\n", id)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# table %s: the kernel differs; missing there:\n", id)
	for _, op := range ops[:min(len(ops), maxDifferences)] {
		fmt.Fprintf(&b, "#   %s\n", nft.Clip(op.String()))
	}
	if more := len(ops) - maxDifferences; more > 0 {
		fmt.Fprintf(&b, "#   and %d changes more\n", more)
	}
	return b.String()
}

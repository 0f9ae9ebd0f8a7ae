// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"io"
	"strings"
)

// Differences of a table from the kernel's: how many are shown, and how often the table is read to find
// one that stayed the same meanwhile.
const (
	maxDifferences = 50
	comparisons    = 3
)

// Show writes a table that a process has loaded, after comments that say what differs in the kernel. last
// returns the table of the last commit, nil for none; any goroutine may call it. The kernel's table is read
// over a connection of its own, in the network namespace of the calling thread.
func Show(out io.Writer, id TableID, last func() *Table) error {
	table, said := compare(id, last)
	text := ""
	if table != nil {
		text = table.String()
	}
	if _, err := fmt.Fprintf(out, "%s%s", said, text); err != nil {
		return fmt.Errorf("printing table %s: %w", id, err)
	}
	return nil
}

// compare returns the table that was loaded, and comments about what the kernel has. A table that is
// replaced while the kernel is read is compared again.
func compare(id TableID, last func() *Table) (table *Table, said string) {
	for range comparisons {
		table = last()
		actual, err := readFresh(id)
		switch {
		case err != nil:
			return table, fmt.Sprintf("# table %s: not compared with the kernel: %s\n", id, Clip(err.Error()))
		case last() == table:
			return table, differences(id, actual, table)
		}
	}
	return table, fmt.Sprintf("# table %s: not compared with the kernel: it changes all the time\n", id)
}

func readFresh(id TableID) (*Table, error) {
	conn, err := Open(0, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // nothing is written
	return conn.Read()
}

// differences says what an agent would change in the kernel.
func differences(id TableID, actual, table *Table) string {
	if table == nil {
		if actual != nil {
			return fmt.Sprintf("# table %s: the kernel has one, which this agent did not load\n", id)
		}
		return fmt.Sprintf("# table %s: none is loaded\n", id)
	}
	ops := Diff(actual, table)
	if len(ops) == 0 {
		return fmt.Sprintf("# table %s: the kernel has exactly this\n", id)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# table %s: the kernel differs; missing there:\n", id)
	for _, op := range ops[:min(len(ops), maxDifferences)] {
		fmt.Fprintf(&b, "#   %s\n", Clip(op.String()))
	}
	if more := len(ops) - maxDifferences; more > 0 {
		fmt.Fprintf(&b, "#   and %d changes more\n", more)
	}
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"fmt"

	"github.com/google/nftables"
)

// Tables switches tables of one endpoint's nftables off and on. A dormant table
// keeps all it holds, but the kernel takes its hooks away: packets no longer
// meet it. Whoever owns the table takes that for damage and repairs it, so it
// is for tables that their owner has left behind.
type Tables struct{ conn *nftables.Conn }

// NewTables connects to the endpoint's nftables. The caller must Close it.
func NewTables(e *Endpoint) (*Tables, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(e.NS.FD()), nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("connecting to nftables of %s: %w", e.Name, err)
	}
	return &Tables{conn}, nil
}

// Close ends the connection. The tables stay as they are.
func (t *Tables) Close() error {
	if err := t.conn.CloseLasting(); err != nil {
		return fmt.Errorf("closing nftables: %w", err)
	}
	return nil
}

// SetDormant switches the tables of that name off or on, of all families, in one
// transaction, and returns how many there are.
func (t *Tables) SetDormant(name string, dormant bool) (int, error) {
	found, err := t.named(name)
	if err != nil {
		return 0, err
	}
	for _, table := range found {
		table.Flags &^= nftables.TableFlagDormant
		if dormant {
			table.Flags |= nftables.TableFlagDormant
		}
		t.conn.AddTable(table)
	}
	if err := t.conn.Flush(); err != nil {
		return 0, fmt.Errorf("switching table %s: %w", name, err)
	}
	return len(found), nil
}

func (t *Tables) named(name string) ([]*nftables.Table, error) {
	all, err := t.conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("listing tables: %w", err)
	}
	var list []*nftables.Table
	for _, table := range all {
		if table.Name == name {
			list = append(list, table)
		}
	}
	return list, nil
}

// Hook is a base chain: where packets enter a table.
type Hook struct {
	Family, Table, Chain, Type string
	// Number is that of the kernel: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
	Number uint32
}

// Hooks returns the base chains of the tables of that name that packets can
// meet, as the kernel lists them; none of a dormant table.
func (t *Tables) Hooks(name string) ([]Hook, error) {
	tables, err := t.named(name)
	if err != nil {
		return nil, err
	}
	chains, err := t.conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("listing chains: %w", err)
	}
	var hooks []Hook
	for _, table := range tables {
		if table.Flags&nftables.TableFlagDormant != 0 {
			continue
		}
		for _, c := range chains {
			if c.Table.Name == name && c.Table.Family == table.Family && c.Hooknum != nil {
				hooks = append(hooks, Hook{familyName(table.Family), name, c.Name, string(c.Type), uint32(*c.Hooknum)})
			}
		}
	}
	return hooks, nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprint(f)
}

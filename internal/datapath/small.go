// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"github.com/podwall/podwall/internal/kernel/nft"
)

// smallTable is what is known of one of the tables beside the one in which packets
// are judged.
type smallTable struct {
	actual *nft.Table
	known  bool
}

// agree makes a small table what is desired; nil stands for no table.
func (d *Datapath) agree(id nft.TableID, desired *nft.Table) error {
	t := d.small[id]
	if t.known && t.actual == nil && desired == nil {
		return nil
	}
	err := d.trust(d.agreeFrom(d.conn.Of(id), &t, desired))
	if t.known = err == nil; t.known {
		t.actual = desired
	}
	d.small[id] = t
	return err
}

func (d *Datapath) agreeFrom(conn *nft.Conn, t *smallTable, desired *nft.Table) error {
	if !t.known {
		var err error
		if t.actual, err = conn.Read(); err != nil {
			return err
		}
	}
	if desired == nil {
		if t.actual == nil {
			return nil
		}
		return d.committed(conn.Delete())
	}
	ops := nft.Diff(t.actual, desired)
	if len(ops) == 0 {
		return nil
	}
	return d.committed(conn.Commit(ops))
}

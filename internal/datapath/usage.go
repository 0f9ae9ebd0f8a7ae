// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

// Connections returns how many entries the kernel's connection table has in this
// network namespace, and how many it can have (nf_conntrack_max); 0 for no bound.
// Both are 0 where the table cannot be read at all: then every Report says so. It
// is called by the goroutine of Apply.
func (d *Datapath) Connections() (entries, limit uint32, err error) {
	if d.cuts.conn == nil {
		return 0, 0, nil
	}
	return d.cuts.conn.Count()
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

// Connections returns the number of entries in the connection table of this network namespace and its
// maximum (nf_conntrack_max); 0 means unbounded. Both are 0 if the table cannot be read; every Report has a
// problem for that. The goroutine of Apply calls it.
func (d *Datapath) Connections() (entries, limit uint32, err error) {
	if d.cuts.conn == nil {
		return 0, 0, nil
	}
	return d.cuts.conn.Count()
}

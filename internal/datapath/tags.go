// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"github.com/podwall/podwall/internal/kernel/links"
)

// tags keeps frames with stacked VLAN tags away from pods, where bridges carry
// pods and the guard is not switched off: like the guard it stops what meets no
// chain of ours otherwise, and like it it costs a hook, on bridged frames.
func (d *Datapath) tags(report *Report) {
	want := d.bridged && d.options.Guard != GuardOff
	if d.tagsKnown && d.tagsDropped == want {
		return
	}
	right, exists, err := d.conn.DropsStackedTags()
	if err == nil && (want && !right || !want && exists) {
		if err = d.conn.DropStackedTags(want); err == nil {
			d.generation++ // one transaction of ours
		}
	}
	if d.trust(err) != nil {
		report.problem("stacked VLAN tags", "frames with several VLAN tags reach isolated pods of a bridge: "+err.Error(),
			"use a kernel with CONFIG_NF_TABLES_BRIDGE, or --invalid-guard=off to accept this")
	}
	d.tagsKnown, d.tagsDropped = err == nil, want
}

// vlanLost reports whether somebody took back the setting for VLAN-tagged
// frames: the kernel does not notify about sysctls.
func (d *Datapath) vlanLost() bool {
	if !d.bridged {
		return false
	}
	on, err := links.ReadVLAN(d.options.Sysctls)
	return err == nil && !on
}

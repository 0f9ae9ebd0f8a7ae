// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// tags keeps frames with stacked VLAN tags away from pods, where bridges carry
// pods and the guard is not switched off: like the guard it stops what meets no
// chain of ours otherwise, and like it it costs a hook, on bridged frames.
func (d *Datapath) tags(report *Report) {
	var desired *nft.Table
	if d.bridged && d.options.Guard != GuardOff {
		desired = ruleset.RenderTags()
	}
	if err := d.agree(ruleset.TagTable(), desired); err != nil {
		report.problem("stacked VLAN tags", "frames with several VLAN tags reach isolated pods of a bridge: "+err.Error(),
			"use a kernel with CONFIG_NF_TABLES_BRIDGE, or --invalid-guard=off to accept this")
	}
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

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"fmt"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// bindPorts makes the tables of the families ip and ip6 agree with the wiring.
// What cannot be bound is a problem and no reason to stop: the policies of the
// big table still hold.
func (d *Datapath) bindPorts(n program.Node, report *Report) {
	for _, f := range inet.Families {
		if err := d.agree(ruleset.PortTable(f), ruleset.RenderPorts(f, n)); err != nil {
			report.Problems = append(report.Problems, Problem{Subject: fmt.Sprintf("bridge ports, ipv%d", f),
				Text: "a pod can forge the address of another pod of its bridge: " + err.Error(),
				Cure: "use a kernel with CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_MATCH_PHYSDEV"})
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"slices"

	"github.com/podwall/podwall/internal/kernel/xtables"
	"github.com/podwall/podwall/internal/kuberouter"
)

// legacy finds chains of kube-router's firewall in iptables-legacy, which nftables neither shows
// nor notifies about.
type legacy struct {
	reader xtables.Reader
	// chains and err are what the last look found, which the last pass reported.
	chains []string
	err    error
}

// look reads the tables and reports whether it found something else than the last time. Chains of
// equal tables may keep the names of an earlier sync of kube-router.
func (l *legacy) look() (changed bool) {
	tables, err := l.reader.Read("filter")
	var chains []string
	for _, t := range tables {
		for _, name := range t.Chains {
			if kuberouter.IsFirewallChain(name) {
				chains = append(chains, name+" ("+t.Family+", iptables-legacy)")
			}
		}
	}
	changed = !slices.Equal(chains, l.chains) || (err == nil) != (l.err == nil)
	l.chains, l.err = chains, err
	return changed
}

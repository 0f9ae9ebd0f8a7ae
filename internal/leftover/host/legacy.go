// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"github.com/podwall/podwall/internal/kernel/xtables"
	"github.com/podwall/podwall/internal/leftover"
)

// Legacy lists those of the named tables of iptables-legacy that are in use.
func Legacy(tables ...string) (list []leftover.LegacyTable, err error) {
	found, err := new(xtables.Reader).Read(tables...)
	for _, t := range found {
		list = append(list, leftover.LegacyTable{Key: leftover.Key{Family: t.Family, Name: t.Name}, Chains: t.Chains})
	}
	return list, err
}

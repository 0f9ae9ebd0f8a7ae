// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"iter"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/program"
)

// Fronts returns the fronts of a table that was read from the kernel. A nil table has none.
func Fronts(t *nft.Table) iter.Seq[program.Front] {
	return func(yield func(program.Front) bool) {
		if t == nil {
			return
		}
		for _, s := range t.Sets {
			if s.Name != setServices && s.Name != setNodePorts {
				continue
			}
			for _, e := range s.Entries {
				if !yield(program.Front{Addr: e.Key.Addr, Protocol: e.Key.Protocol, Port: e.Key.Port}) {
					return
				}
			}
		}
	}
}

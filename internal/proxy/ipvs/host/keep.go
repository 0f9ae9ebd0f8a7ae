// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
)

// keeper says which destinations may serve their connections to the end: those of backends that the front still
// has for some clients, and of those that still serve. It reads the backends of a front once.
type keeper struct {
	program *program.Program
	serving func(program.Front, program.Backend) bool // or nil
	slot    func(program.Front, uint16) (program.Slot, bool)
	fronts  map[program.Front]map[program.Backend]bool
}

func newKeeper(p *program.Program, serving func(program.Front, program.Backend) bool) *keeper {
	return &keeper{p, serving, p.Slot, map[program.Front]map[program.Backend]bool{}}
}

func (k *keeper) keep(id kernel.ID, b kernel.Backend) bool {
	f := ipvs.Front(k.program, id)
	has, known := k.fronts[f]
	if !known {
		has = k.backends(f)
		k.fronts[f] = has
	}
	return has[program.Backend(b)] || k.serving != nil && k.serving(f, program.Backend(b))
}

// backends returns those of a front, whose slots are numbered without a gap.
func (k *keeper) backends(f program.Front) map[program.Backend]bool {
	has := map[program.Backend]bool{}
	for n := uint16(0); ; n++ {
		s, ok := k.slot(f, n)
		if !ok {
			return has
		}
		has[s.Backend] = true
	}
}

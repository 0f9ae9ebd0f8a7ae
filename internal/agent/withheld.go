// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"net/netip"

	"github.com/podwall/podwall/internal/cluster"
)

// withheld says up to where everything is in the kernel while some addresses are
// held back. The zero value is for use.
type withheld struct {
	// reached is the revision of the store up to which everything is enforced. It
	// never goes back. source is what the source delivered last when nothing was
	// held back.
	reached uint64
	source  string

	last  uint64                // revision of the last pass that was committed
	since map[netip.Addr]uint64 // the revision before each of the addresses was held
}

// passed notes a pass that was committed and held these addresses back. A pass is not
// whole if something of the same revision comes after it.
func (w *withheld) passed(d cluster.Delta, held []netip.Addr, whole bool) {
	since := make(map[netip.Addr]uint64, len(held))
	for _, a := range held {
		since[a] = w.last
		if before, known := w.since[a]; known {
			since[a] = before
		}
	}
	w.since = since
	if !whole {
		return
	}
	w.reached, w.last = d.Revision, d.Revision
	for _, before := range since {
		w.reached = min(w.reached, before)
	}
	if len(held) == 0 {
		w.source = d.Source
	}
}

// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/program"
)

// StickyChanges returns the sticky fronts of which a backend went, or whose clients choose among others now.
// Their maps may have clients of a backend that they must not meet again. If old is nil, the maps were filled
// under an unknown program, and these are all sticky fronts.
func StickyChanges(old, now *program.Program) []program.Front {
	if old == nil {
		return stickyFronts(now)
	}
	changed := map[program.Front]bool{}
	_, routes := now.Routes.Diff(old.Routes)
	for _, r := range routes {
		changed[r.Front] = r.Sticky > 0 || changed[r.Front]
	}
	_, slots := now.Slots.Diff(old.Slots)
	for _, s := range slots {
		changed[s.Front] = s.Sticky > 0 || changed[s.Front]
	}
	var fronts []program.Front
	for f, sticky := range changed {
		if r, ok := now.Route(f); sticky && ok && r.Sticky > 0 {
			fronts = append(fronts, f)
		}
	}
	slices.SortFunc(fronts, program.Front.Compare)
	return fronts
}

// stickyFronts returns all sticky fronts.
func stickyFronts(p *program.Program) (fronts []program.Front) {
	for r := range p.Routes.All() {
		if r.Sticky > 0 {
			fronts = append(fronts, r.Front)
		}
	}
	slices.SortFunc(fronts, program.Front.Compare)
	return fronts
}

// Stale returns the members of a sticky front's map that lead to a backend that the client cannot choose.
// own reports whether an address is one of the node's own.
func Stale(p *program.Program, f program.Front, members []nft.Entry, own func(netip.Addr) bool) (stale []nft.Entry) {
	r, ok := p.Route(f)
	if !ok {
		return members
	}
	inside, outside := map[program.Backend]bool{}, map[program.Backend]bool{}
	for _, b := range p.Backends(f, r.Inside) {
		inside[b] = true
	}
	for _, b := range p.Backends(f, r.Outside) {
		outside[b] = true
	}
	for _, e := range members {
		client := program.Packet{Src: e.Key.Addr, FromNode: own(e.Key.Addr)}
		among := outside
		if p.PickOf(r, client) == r.Inside {
			among = inside
		}
		if !among[program.Backend{Addr: e.To.Addr(), Port: e.To.Port()}] {
			stale = append(stale, e)
		}
	}
	return stale
}

// Forget takes clients of backends that went out of the maps of sticky fronts, and returns how many these
// were. It is called after the change of the program is in the kernel, since until then clients are still
// sent to the backend; the map of a front that is no longer there is none.
func Forget(c *nft.Conn, p *program.Program, fronts []program.Front, s Settings,
	own func(netip.Addr) bool) (total int, err error) {
	for _, f := range fronts {
		n, err := forget(c, p, f, s, own)
		if total += n; err != nil {
			return total, fmt.Errorf("forgetting clients of %s: %w", f, err)
		}
	}
	return total, nil
}

// A listing of a map that changes meanwhile may miss a client, and a client whose time ends between listing
// and deleting makes the deletion of those beside it fail.
const (
	forgetClean  = 2   // listings without such a client in a row end the search
	forgetTries  = 20  // listings at most
	forgetAtOnce = 256 // clients in one transaction
)

func forget(c *nft.Conn, p *program.Program, f program.Front, s Settings,
	own func(netip.Addr) bool) (n int, err error) {
	set := AffinitySet(f, p.Family, s)
	for clean, try := 0, 0; clean < forgetClean; try++ {
		members, found, failed := c.Members(set)
		if failed != nil || !found {
			return n, failed
		}
		stale := Stale(p, f, members, own)
		if len(stale) == 0 {
			clean++
			continue
		}
		if clean = 0; try >= forgetTries {
			return n, errors.New("there are always more")
		}
		slices.SortFunc(stale, nft.Entry.Compare)
		stale = slices.CompactFunc(stale, func(a, b nft.Entry) bool { return a.Key == b.Key })
		for some := range slices.Chunk(stale, forgetAtOnce) {
			err := c.Commit([]nft.Op{{Kind: nft.DeleteElements, Set: set, Entries: some}})
			switch {
			case err == nil:
				n += len(some)
			case !nft.IsMissing(err):
				return n, err
			}
		}
	}
	return n, nil
}

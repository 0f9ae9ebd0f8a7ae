// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// byAddr finds pods by address, for about 25 bytes each: a map from a digest of the address, which
// the pod itself holds in full. Two pods have one address while it is reused, and a few in a
// million have the same digest.
type byAddr struct {
	one  map[uint32]*cluster.Pod
	more map[uint32][]*cluster.Pod // all pods of a digest that several have; one is not in it
}

func newByAddr() byAddr {
	return byAddr{one: map[uint32]*cluster.Pod{}, more: map[uint32][]*cluster.Pod{}}
}

func digest(a netip.Addr) uint32 { return uint32(inet.Element{Addr: a}.Hash()) }

// of returns the pods that have the address.
func (b byAddr) of(a netip.Addr) []*cluster.Pod {
	d := digest(a)
	if p := b.one[d]; p != nil {
		if slices.Contains(p.IPs, a) {
			return []*cluster.Pod{p}
		}
		return nil
	}
	var list []*cluster.Pod
	for _, p := range b.more[d] {
		if slices.Contains(p.IPs, a) {
			list = append(list, p)
		}
	}
	return list
}

func (b byAddr) add(a netip.Addr, p *cluster.Pod) {
	d := digest(a)
	list := b.more[d]
	if o := b.one[d]; o != nil {
		delete(b.one, d)
		list = []*cluster.Pod{o}
	}
	if len(list) == 0 {
		b.one[d] = p
		return
	}
	b.more[d] = append(list, p)
}

// remove undoes one add.
func (b byAddr) remove(a netip.Addr, p *cluster.Pod) {
	d := digest(a)
	if b.one[d] == p {
		delete(b.one, d)
		return
	}
	switch list := drop(b.more[d], p); len(list) {
	case 0:
	case 1:
		delete(b.more, d)
		b.one[d] = list[0]
	default:
		b.more[d] = list
	}
}

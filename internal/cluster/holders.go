// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/binary"
	"net/netip"
)

// holders counts the pods that the API lists with an address, by a digest of the address. It
// answers "does another pod have it?" without a walk over all pods, and costs about 15 bytes per
// pod, a third of an index by address. If two addresses have the same digest, a walk is made in
// vain, and a pod may be refused an extra address that it requests (one in four billion for each
// pair of addresses).
type holders map[uint32]int32

// count adds a pod, or with by = -1 removes it. Pods that cannot lose an address do not count.
func (h holders) count(p *Pod, by int32) {
	if !p.Networked() {
		return
	}
	for _, ip := range p.IPs {
		d := digest(ip)
		if h[d] += by; h[d] == 0 {
			delete(h, d)
		}
	}
}

// others reports whether a pod other than p (which may be nil) may have the address.
func (h holders) others(ip netip.Addr, p *Pod) bool {
	d, own := digest(ip), int32(0)
	if p.Networked() {
		for _, o := range p.IPs {
			if digest(o) == d {
				own++
			}
		}
	}
	return h[d] > own
}

func digest(ip netip.Addr) uint32 {
	b := ip.As16()
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	x := high*0x9e3779b97f4a7c15 ^ low
	x *= 0xd6e8feb86659fd93
	return uint32(x >> 32)
}

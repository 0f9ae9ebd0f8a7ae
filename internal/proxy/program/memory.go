// SPDX-License-Identifier: Apache-2.0

package program

import (
	"math/bits"
	"net/netip"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
)

// Memory is which clients of sticky fronts come back to which backend, as a value. The zero value
// remembers nobody.
type Memory struct{ visits immutable.Set[visit] }

// visit is the last connection of a client to a front.
type visit struct {
	client netip.Addr
	front  Front
	to     Backend
	until  Seconds
}

// Hash implements immutable.Hasher.
func (v visit) Hash() uint64 { return visitHash(v.client, v.front) }

func visitHash(client netip.Addr, f Front) uint64 {
	hi, lo := bits.Mul64(inet.Element{Addr: client}.Hash()^f.hash(0), 0x9e3779b97f4a7c15)
	return hi ^ lo
}

// last returns the last visit of the packet's client, however long ago.
func (m Memory) last(f Front, p Packet) (visit, bool) {
	return m.visits.Find(visitHash(p.Src, f), func(v visit) bool { return v.client == p.Src && v.front == f })
}

// recall returns the backend that the packet's client comes back to.
func (m Memory) recall(f Front, p Packet) (Backend, bool) {
	v, ok := m.last(f, p)
	return v.to, ok && p.At < v.until
}

// with returns the memory after a connection of the packet's client to a backend.
func (m Memory) with(f Front, p Packet, to Backend, sticky Seconds) Memory {
	if v, ok := m.last(f, p); ok {
		m.visits = m.visits.Without(v)
	}
	return Memory{m.visits.With(visit{p.Src, f, to, p.At + sticky})}
}

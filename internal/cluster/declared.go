// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// Declared is what a pod's object says beside labels and addresses. Equal ones are
// shared by pods, and most pods have none.
type Declared struct {
	// Ports are the container ports that have a name, in the order of the API.
	Ports []NamedPort
	// Extra are the further addresses that an annotation asks for; nil for none.
	Extra *Extra
}

// Extra are addresses beside those that the pod network gave a pod: those of a
// virtual machine in it, or the one that keepalived moves. The API knows nothing of
// them. They count as far as the operator allows it (Store.Allow).
type Extra struct {
	// Addrs are unmapped and without duplicates.
	Addrs    []netip.Addr
	Hardware []inet.Hardware
	// Unread are entries that are no addresses, and why.
	Unread []string
}

// MaxExtra bounds the entries of an annotation that are read.
const MaxExtra = 8

// NamedPorts returns the pod's container ports that have a name.
func (p *Pod) NamedPorts() []NamedPort {
	if p.Declared == nil {
		return nil
	}
	return p.Declared.Ports
}

// Extra returns the further addresses that the pod's annotation asks for; nil for none.
func (p *Pod) Extra() *Extra {
	if p == nil || p.Declared == nil {
		return nil
	}
	return p.Declared.Extra
}

func (d *Declared) equal(o *Declared) bool {
	if d == nil || o == nil || d == o {
		return d == o
	}
	return slices.Equal(d.Ports, o.Ports) && d.Extra.equal(o.Extra)
}

func (e *Extra) equal(o *Extra) bool {
	if e == nil || o == nil {
		return e == o
	}
	return slices.Equal(e.Addrs, o.Addrs) && slices.Equal(e.Hardware, o.Hardware) && slices.Equal(e.Unread, o.Unread)
}

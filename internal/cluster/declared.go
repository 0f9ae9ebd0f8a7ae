// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
)

// Declared holds the facts of a pod's object other than labels and addresses. Equal values are
// shared by pods; most pods have none.
type Declared struct {
	// Ports are the container ports that have a name, in the order of the API.
	Ports []NamedPort
	// Extra are the extra addresses that an annotation requests; nil for none.
	Extra *Extra
}

// Extra are addresses in addition to those that the pod network assigned: for instance those of a
// virtual machine in the pod, or one that keepalived moves. The API does not know them. They count
// as far as the operator allows it (Store.Allow).
type Extra struct {
	// Addrs are unmapped and without duplicates.
	Addrs    []netip.Addr
	Hardware []inet.Hardware
	// Unread lists the entries that are not addresses, with the reason.
	Unread []string
}

// MaxExtra bounds the number of entries that are read from an annotation.
const MaxExtra = 8

// NamedPorts returns the pod's container ports that have a name.
func (p *Pod) NamedPorts() []NamedPort {
	if p.Declared == nil {
		return nil
	}
	return p.Declared.Ports
}

// Extra returns the extra addresses that the pod's annotation requests; nil for none.
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

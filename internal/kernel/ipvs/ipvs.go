// SPDX-License-Identifier: Apache-2.0

// Package ipvs has the kernel's IP virtual server as values, and reads and changes it: virtual services with
// their schedulers, and the destinations behind them.
//
// A virtual service that is found by a mark of packets, and not by an address, is listed and never changed.
// The package does not know what a virtual service is for, nor whose it is.
package ipvs

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// ID names a virtual service. Its family is that of the address.
type ID struct {
	Addr     netip.Addr
	Protocol inet.Protocol // TCP, UDP or SCTP
	Port     uint16
}

// Service is a virtual service without its destinations.
type Service struct {
	ID
	// Mark is the mark of the packets that find the virtual service; the rest of ID is empty then. 0 for one
	// that is found by its ID.
	Mark uint32
	// Scheduler is its name, as in rr.
	Scheduler string
	// Flags are the kernel's. Bits that the kernel does not know it keeps, and shows as they were set.
	Flags Flags
	// Timeout is for how many seconds after its last connection a client comes back to its destination, if
	// Flags has Persistent. A client is one address. Without Persistent it is 0.
	Timeout uint32
}

// Flags are properties of a virtual service.
type Flags uint32

// The flags that the kernel knows. What the options of a scheduler mean depends on the scheduler.
const (
	Persistent Flags = 1 << iota
	hashed           // the kernel's own; it is not among the flags of List
	OnePacket        // UDP: each packet is a connection of its own
	Option1          // sh: fallback; mh: fallback
	Option2          // sh: port; mh: port
	Option3
)

// Backend is where a destination is.
type Backend struct {
	Addr netip.Addr
	Port uint16
}

// Destination is a real server of a virtual service. Packets are translated to it, and answers back
// (the method that ipvsadm calls masquerading).
type Destination struct {
	Backend
	// Weight is how many connections the destination gets, compared with others; 0 for no new one.
	Weight uint32
	// Other is true if another method forwards to it: direct routing, a tunnel.
	Other bool
}

// Listed is a virtual service with its destinations as the kernel has them.
type Listed struct {
	Service
	Destinations []Held
}

// Held is a destination with the connections that it has.
type Held struct {
	Destination
	// Active are established connections, Inactive others that the kernel still knows. Remembered are clients
	// that come back to it.
	Active, Inactive, Remembered uint32
}

// Connections returns how many connections the destination has.
func (h Held) Connections() uint32 { return h.Active + h.Inactive }

// Timeouts are the seconds without packets after which connections are forgotten: open ones of TCP, those of TCP
// that one end has closed, and those of UDP.
type Timeouts struct{ TCP, TCPFin, UDP uint32 }

// Or returns the timeouts with those of others in the place of zeros.
func (t Timeouts) Or(o Timeouts) Timeouts {
	return Timeouts{cmp.Or(t.TCP, o.TCP), cmp.Or(t.TCPFin, o.TCPFin), cmp.Or(t.UDP, o.UDP)}
}

// Kind is what an operation does.
type Kind uint8

// The operations.
const (
	AddService Kind = iota + 1
	EditService
	DeleteService // with its destinations
	AddDestination
	EditDestination
	DeleteDestination
)

// Op is a change of one object. The kernel has no transactions: each is in force by itself.
type Op struct {
	Kind        Kind
	Service     Service     // its ID only, but to add and edit it
	Destination Destination // of operations on destinations
}

// Compare orders virtual services by their IDs.
func (id ID) Compare(o ID) int {
	return cmp.Or(id.Addr.Compare(o.Addr), cmp.Compare(id.Port, o.Port), cmp.Compare(id.Protocol, o.Protocol))
}

// Compare orders destinations.
func (b Backend) Compare(o Backend) int {
	return cmp.Or(b.Addr.Compare(o.Addr), cmp.Compare(b.Port, o.Port))
}

// String returns the address and the port with its protocol, as in 10.96.0.1 port 80/tcp.
func (id ID) String() string { return fmt.Sprintf("%s port %d/%s", id.Addr, id.Port, id.Protocol) }

// String returns the address and the port.
func (b Backend) String() string { return netip.AddrPortFrom(b.Addr, b.Port).String() }

// String describes the operation.
func (o Op) String() string {
	s, d := o.Service, o.Destination
	switch o.Kind {
	case AddService, EditService:
		verb := "add"
		if o.Kind == EditService {
			verb = "edit"
		}
		return fmt.Sprintf("%s %s scheduler %s flags %#x timeout %d", verb, s.ID, s.Scheduler, uint32(s.Flags),
			s.Timeout)
	case DeleteService:
		return fmt.Sprintf("delete %s", s.ID)
	case AddDestination:
		return fmt.Sprintf("add %s to %s weight %d", d.Backend, s.ID, d.Weight)
	case EditDestination:
		return fmt.Sprintf("edit %s of %s weight %d", d.Backend, s.ID, d.Weight)
	case DeleteDestination:
		return fmt.Sprintf("delete %s of %s", d.Backend, s.ID)
	}
	return fmt.Sprintf("operation %d", o.Kind)
}

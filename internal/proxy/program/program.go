// SPDX-License-Identifier: Apache-2.0

// Package program holds the backend-neutral program of the service proxy: where the first packet of
// a connection to a Service goes. Package service writes it, a backend renders it, and Eval
// interprets it as the second witness next to the kernel.
//
// It knows nothing of Kubernetes and nothing of nftables. Services are content, never structure: a
// front with its route, and the numbered backends behind it. A change of one Service is a change of
// its own elements. The order in which a packet meets the parts is written once, in Eval, and
// rendered once, in the backend:
//
//  1. a front with exactly this address, protocol and port decides;
//  2. every other packet to a cluster address is rejected; to an address of a service range
//     that no Service has, dropped;
//  3. a node port decides, if the packet is to an address of the node that takes node ports;
//  4. all others are not the proxy's.
package program

import (
	"math/bits"
	"net/netip"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
)

// Program is what the kernel of one node must do with connections to Services, for one family. It
// is immutable once published. All addresses in it are of the family.
type Program struct {
	Family inet.Family
	// Routes say how each front is answered. No two have the same front.
	Routes immutable.Set[Route]
	// Slots are the numbered backends of the fronts.
	Slots immutable.Set[Slot]
	// ClusterAddresses are the addresses of Services at which ports without a front are rejected.
	// External addresses are not among them: they may be served by others.
	ClusterAddresses inet.Elements
	// ServiceRanges are the ranges from which cluster addresses are assigned. Packets to an address
	// in them that no Service has are dropped.
	ServiceRanges []netip.Prefix
	// NodeAddresses are the node's own addresses that take node ports; never a loopback address.
	NodeAddresses []netip.Addr
	// ClusterPods are the ranges of the addresses of the cluster's pods. Clients in them keep their
	// source where a Pick says Strangers.
	ClusterPods []netip.Prefix
	// NodePods are the ranges of the addresses of this node's pods. With the node itself they are
	// the clients that are inside. A pod of another node is outside: if it were sent on to a third
	// node with its source, the answer would not pass this node.
	NodePods []netip.Prefix
	// Loops are addresses of backends on this node. A connection from one of them to itself is
	// masqueraded: otherwise its answers would not pass the node.
	Loops inet.Elements
	// Admissions are the lists of client ranges that routes refer to, sorted by name.
	Admissions []Admission
}

// Front is what clients connect to. Without an address it is a node port: every address of
// Program.NodeAddresses.
type Front struct {
	Addr     netip.Addr
	Protocol inet.Protocol
	Port     uint16
}

// Route is how connections to a front are answered.
type Route struct {
	Front Front
	// Inside is for pods of this node and for the node itself, Outside for all other clients.
	Inside, Outside Pick
	// Admission names the client ranges that may connect; clients outside them are dropped. Empty
	// admits all.
	Admission string
	// Sticky is how long after its last connection a client comes back to the same backend; 0 for no
	// affinity.
	Sticky Seconds
	// Schedule is how IPVS chooses a backend. Without IPVS each is as likely.
	Schedule Schedule
}

// Schedule is how IPVS chooses among the backends of a front. The zero value takes them in turn.
type Schedule struct {
	Scheduler Scheduler
	Options   Options
}

// Scheduler is one of those that a Service may ask for.
type Scheduler uint8

// The schedulers. With weights that are all the same, others of the kernel do the same as these.
const (
	RoundRobin      Scheduler = iota
	LeastConnection           // the backend with the fewest connections
	SourceHash                // by the client's address
	DestinationHash           // by the front's address
	Maglev                    // by the client's address, hardly changed by backends that come and go
)

// Options change what a scheduler does; they are the kernel's three. Both hashes of clients and Maglev have
// Fallback and ByPort.
type Options uint8

// The options.
const (
	Fallback Options = 1 << iota // another backend instead of one that takes no connections
	ByPort                       // by the client's port, too
	Third
)

// Seconds is a number of seconds.
type Seconds uint32

// Pick is a choice among the slots of a front: each of First to First+Count-1 is as likely.
type Pick struct {
	First, Count uint16
	// Otherwise is the answer if Count is 0. With Leave only IPVS knows the backends.
	Otherwise Answer
	// Masquerade says for which clients the node puts its own address in place of theirs.
	Masquerade Masquerade
}

// Answer is what a client gets when there is no backend.
type Answer uint8

// The answers. The zero value is the silent one.
const (
	Drop   Answer = iota
	Reject        // TCP reset, or ICMP port unreachable
	Leave         // none: IPVS, which comes later, chooses the backend
)

// Masquerade says for which clients the source is replaced.
type Masquerade uint8

// The choices. A connection from a backend to itself is always masqueraded.
const (
	Never     Masquerade = iota
	Strangers            // all but the cluster's pods
	Always
)

// Slot is a numbered backend of a front.
type Slot struct {
	Front  Front
	Number uint16
	// Sticky is that of the front's route: a backend of a sticky front is remembered.
	Sticky Seconds
	Backend
}

// Backend is where connections go.
type Backend struct {
	Addr netip.Addr
	Port uint16
}

// Admission is a named list of client ranges. The name is derived from them.
type Admission struct {
	Name   string
	Ranges []netip.Prefix // sorted, none within another
}

// MaxSlots is how many backends a front can have.
const MaxSlots = 65535

// Hash implements immutable.Hasher.
func (r Route) Hash() uint64 { return r.Front.hash(0) }

// Hash implements immutable.Hasher.
func (s Slot) Hash() uint64 { return s.Front.hash(uint64(s.Number) + 1) }

// hash spreads the front and a number over all bits.
func (f Front) hash(more uint64) uint64 {
	h := inet.Element{Addr: f.Addr, Protocol: f.Protocol, Port: f.Port}.Hash()
	hi, lo := bits.Mul64(h^more*0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}

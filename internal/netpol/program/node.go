// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Node holds the facts about the node that the rules need in addition to the program. Its zero
// value is that of an agent with the default flags on a node without bridges, before it knows where
// a pod is: closed and guarded.
type Node struct {
	// FilterHook renders base chains of type filter instead of nat; see
	// docs/design/datapath.md.
	FilterHook bool
	// NoGuard leaves out the chain that drops invalid and untracked packets of isolated
	// pods, which would skip a nat chain. A filter chain needs no guard.
	NoGuard bool
	// OpenUnknown accepts packets to or from an address that belongs to no known pod. If it is
	// false, these are dropped on every interface that is not in Open.
	OpenUnknown bool
	// Open are the interfaces without pods behind them: network cards, tunnels, bridges of other
	// programs. They are not used if OpenUnknown is true.
	Open []string
	// Attached names the interface of each local pod's addresses. From a listed interface no other
	// source address is accepted.
	Attached []Attachment
	// PodBridges are the bridges of pods, including those that lead out of the node. On them an
	// address is bound to its port.
	PodBridges []string
	// Ported are the pods behind them, including those that are not programmed yet; those without a
	// Port are not bound to one.
	Ported []Attachment
	// Owned are further addresses that no port may have: the node's, and those of pods that several
	// ports claim.
	Owned []netip.Addr
	// OtherPorts are the ports of other bridges, and ports behind which the node itself is: the
	// other end of the veth pair has an address of the node.
	OtherPorts []string
	// UplinkPorts are the ports by which bridges of pods lead out of the node.
	UplinkPorts []string
	// Ingress and Egress are the interfaces that lead to pods which are isolated in the direction.
	// On them only listed addresses may send or receive.
	Ingress, Egress []string
	// ClosedBridges are bridges that carry pods or did so before; the kernel keeps them for the next
	// process. They stay closed.
	ClosedBridges []string
	// Bridges is true if the node has a bridge, with pods or not: any bridge may show its packets
	// to our chains. A bridge in ClosedBridges implies it.
	Bridges bool
	// Cut is true while a connection is being cut: only then are the sets consulted that refuse
	// packets which would revive it.
	Cut bool
	// DeniedGroup is the NFLOG group to which denied packets are recorded, 0 to record none. The
	// kernel has a group 0 too, which is the default of other programs.
	DeniedGroup uint16
	// Restore are the node's settings before the agent changed them, kept in the kernel for
	// --cleanup-config.
	Restore []Saved
}

// Attachment is an address of a local pod and the interface that leads to it.
type Attachment struct {
	Link string
	Addr netip.Addr
	// Port is the port of the bridge Link that the pod is on; empty if Link is not a bridge, or if
	// the port is not known. PortIndex is the index of its interface, and Hardware the hardware
	// address behind it.
	Port      string
	PortIndex int
	Hardware  inet.Hardware
	// Extra is true if an annotation gives the pod Hardware in addition to the address of its
	// interface.
	Extra bool
}

// Saved is a setting of the node before it was changed.
type Saved struct {
	Name string // of the interface, or of a setting without one
	Text string
}

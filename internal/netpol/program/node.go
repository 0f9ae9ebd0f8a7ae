// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Node is what the rules have to know of the node beside the program. Its zero value is
// that of an agent with the default flags on a node without bridges, before it knows where a
// pod is: closed and guarded.
type Node struct {
	// FilterHook renders base chains of type filter instead of nat; see
	// docs/design/datapath.md.
	FilterHook bool
	// NoGuard leaves out the chain that drops invalid and untracked packets of isolated
	// pods, which would skip a nat chain. A filter chain needs no guard.
	NoGuard bool
	// OpenUnknown lets pass what is to or from an address that no known pod has. If it is
	// false, that is dropped on every interface that is not in Open.
	OpenUnknown bool
	// Open are the interfaces that lead elsewhere than to pods: network cards,
	// tunnels, bridges of others. They do not count if OpenUnknown is true.
	Open []string
	// Attached says on which interface each local pod speaks. From an interface
	// that is named here nobody else may.
	Attached []Attachment
	// PodBridges are the bridges of pods, also those that lead out of the node. On them
	// an address belongs to its port.
	PodBridges []string
	// Ported are the pods behind them, also those that are not judged yet; those without a
	// Port are not bound to one.
	Ported []Attachment
	// Owned are further addresses that no port may have: the node's, and those of pods
	// that several ports claim.
	Owned []netip.Addr
	// OtherPorts are those of other bridges, and ports behind which the node itself is:
	// the other end of the pair has an address of the node.
	OtherPorts []string
	// UplinkPorts are ports of the bridges of pods by which these lead out of the node.
	UplinkPorts []string
	// Ingress and Egress are the interfaces that lead to pods which are isolated
	// in the direction. On them only listed addresses may speak or be spoken to.
	Ingress, Egress []string
	// Carried are bridges that carry pods or did, kept in the kernel for the next
	// process: they stay closed.
	Carried []string
	// Bridges is true if the node has a bridge, of pods or not: any may show its
	// packets to our chains. A bridge in Carried says so too.
	Bridges bool
	// Cut is true while a connection is cut: then the sets are asked that refuse
	// what would revive it.
	Cut bool
	// Restore are the settings that the agent found and changed, kept in
	// the kernel for --cleanup-config.
	Restore []Saved
}

// Attachment is an address of a local pod and the interface that leads to it.
type Attachment struct {
	Link string
	Addr netip.Addr
	// Port is the port of the bridge Link that the pod is on; empty if Link is no
	// bridge, or if the port is not known. PortIndex is the index of its interface, and
	// Hardware the hardware address behind it.
	Port      string
	PortIndex int
	Hardware  inet.Hardware
	// Extra is true if Hardware is one that an annotation gives the pod, beside that of its
	// interface.
	Extra bool
}

// Saved is a setting of the node as it was before it was changed.
type Saved struct {
	Name string // of the interface, or of a setting that belongs to none
	Text string
}

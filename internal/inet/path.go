// SPDX-License-Identifier: Apache-2.0

package inet

// Path describes how the node reaches a pod's address.
type Path struct {
	Index  int
	Link   string // the interface's name
	Bridge bool
	// Uplink is true if the interface also leads out of the node. Other machines may then be behind
	// it, so an address there that belongs to no pod is no fault.
	Uplink bool
	// Port is the bridge port that the address is behind; empty if there is none or it is not
	// known. PortIndex is the index of its interface, and Hardware the hardware address behind it.
	Port      string
	PortIndex int
	Hardware  Hardware
	// Bypassed is true if pods, or a bridge of pods, do not use the interface to pass packets to the
	// node's IP layer. Then pods may reach each other without it (macvlan, ipvlan, Open vSwitch,
	// virtual functions of a network card).
	Bypassed bool
	// Sole is true if no route leads to the address, and only its bridge port was found.
	Sole bool
	// Elsewhere is true if no pod of this node can be behind the interface.
	Elsewhere bool
}

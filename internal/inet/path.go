// SPDX-License-Identifier: Apache-2.0

package inet

// Path is how a pod's address is reached from the node.
type Path struct {
	Index  int
	Link   string // the interface's name
	Bridge bool
	// Uplink is true if the interface also leads out of the node. Then other
	// machines may be behind it, so that addresses which belong to no pod are no
	// sign of anything wrong.
	Uplink bool
	// Port is the port of the bridge that the address is behind; empty if there is
	// none or if it is not known. PortIndex is the index of its interface, and Hardware
	// the hardware address behind it.
	Port      string
	PortIndex int
	Hardware  Hardware
	// Beside is true if the interface is none that a pod, or a bridge of pods,
	// hands its packets to the node's IP layer with. Then pods may talk to each
	// other beside it (macvlan, ipvlan, Open vSwitch, a network card's functions).
	Beside bool
	// Sole is true if no route leads to the address, and it was found by its port
	// alone.
	Sole bool
	// Elsewhere is true if no pod of this node can be behind the interface.
	Elsewhere bool
}

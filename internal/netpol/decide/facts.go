// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Wiring is what a pass read of the node's interfaces, routes and rules.
type Wiring struct {
	Now time.Time
	// Paths are how the pods' addresses are reached, Routed the addresses without a
	// path to which a route leads by a gateway or to the node itself, and Announced
	// those that the container runtime said a pod of this node has.
	Paths             map[netip.Addr]inet.Path
	Routed, Announced map[netip.Addr]bool
	// Unclear are addresses that some bridge's port has and that are not believed to
	// be there, and why. AskPorts is after which time to ask new ports for their addresses
	// again; 0 for never.
	Unclear  map[netip.Addr]string
	AskPorts time.Duration
	// Hardware are hardware addresses that pods, by namespace/name, may have beside those
	// of their interfaces.
	Hardware map[string][]inet.Hardware
	// Whose says whose hardware addresses are: of interfaces of the node, and of what is
	// behind ports. It is asked for if there are some in Hardware.
	Whose map[inet.Hardware]string
	// Own are the node's addresses.
	Own []netip.Addr
	// Open are interfaces that lead elsewhere than to pods, Strangers those that may
	// lead to pods and behind which none is known, Carried bridges that carry pods or
	// did. NodePorts are ports of bridges behind which the node itself is, UplinkPorts those
	// that lead out of it, and Ports all ports, each by the index of the bridge.
	Open, Strangers, Carried      []string
	NodePorts, UplinkPorts, Ports map[int][]string
	// Bridges are those that may get pods; AnyBridge is true if there is any bridge.
	Bridges   []inet.Path
	AnyBridge bool
	// Others are the rules of other programs.
	Others Others
	// Recorded are the pods that the table in the kernel knows; nil for none, or for
	// no table. They count for a Decider that is Fresh.
	Recorded []program.Pod
	// Beside is true if somebody looks for connections from before a pod beside the
	// loop. Clean are the addresses of which none is left, with the index of the
	// interface over which the route went when that was found out.
	Beside bool
	Clean  map[netip.Addr]int
}

// Others says what matters of the rules of other programs.
type Others struct {
	// NATBefore are nat chains that run before ours, for people.
	NATBefore []string
	// DropsInvalid is true if somebody drops invalid packets at forward.
	DropsInvalid bool
	// KubeRouter are the chains of kube-router's firewall.
	KubeRouter []string
}

// Connections is what a pass knows of connections that exist.
type Connections struct {
	// Unreadable says why the connection table cannot be read; then nothing else
	// counts.
	Unreadable error
	// Node are the node's addresses, Broadcasts those of its networks.
	Node, Broadcasts []netip.Addr
	// Found were found denied, by the rules of that time. Failed is why the last scan
	// failed.
	Found  []cut.Cut
	Failed error
	// Read is true if the table was read from the kernel since the last commit. Refused
	// is what it refused then.
	Read    bool
	Refused []program.Refused
	// More is true if Found are not all.
	More bool
}

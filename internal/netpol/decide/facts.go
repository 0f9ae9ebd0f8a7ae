// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Wiring holds the node's interfaces, routes and rules as read by a pass.
type Wiring struct {
	Now time.Time
	// Paths are the paths to the pods' addresses. Routed are the addresses without a path to which
	// a route leads by a gateway or to the node itself. Announced are the addresses that the
	// container runtime reported for pods of this node.
	Paths             map[netip.Addr]inet.Path
	Routed, Announced map[netip.Addr]bool
	// Unclear are addresses that a bridge port has but that are not trusted to be there, with the
	// reason. RetryPorts is when to query new ports for their addresses again; 0 for never.
	Unclear    map[netip.Addr]string
	RetryPorts time.Duration
	// Hardware are hardware addresses that pods, by namespace/name, may have in addition to those
	// of their interfaces.
	Hardware map[string][]inet.Hardware
	// HardwareOwners names the owners of hardware addresses: interfaces of the node, and hosts behind ports.
	// It is filled only if Hardware is not empty.
	HardwareOwners map[inet.Hardware]string
	// Own are the node's addresses.
	Own []netip.Addr
	// Open are interfaces without pods behind them, WithoutPod those that may lead to pods although
	// none is known there, RememberedBridges bridges that carry pods or did so before. NodePorts are ports of
	// bridges behind which the node itself is, UplinkPorts those that lead out of the node, and
	// Ports all ports, each by the index of the bridge.
	Open, WithoutPod, RememberedBridges []string
	NodePorts, UplinkPorts, Ports       map[int][]string
	// Bridges may get pods; AnyBridge is true if there is any bridge.
	Bridges   []inet.Path
	AnyBridge bool
	// Others are the rules of other programs.
	Others Others
	// Recorded are the pods recorded in the kernel's table; nil for none, or without a table. A
	// Decider that is Fresh uses them.
	Recorded []program.Pod
	// Searching is true if connections older than a pod are searched for outside the loop. Clean are
	// the addresses for which the search has ended.
	Searching bool
	Clean     map[netip.Addr]Search
}

// Search is the result of a search for the connections of an address that are older than its pod.
type Search struct {
	// Link is the index of the interface of the address's route at that time.
	Link int
	// Empty is true if none is left. Else the search failed, or finds new ones each time.
	Empty bool
}

// Others holds the relevant facts about the rules of other programs.
type Others struct {
	// NATBefore are nat chains that run before ours at postrouting or input, for people. NATBeforeRouting
	// are those at prerouting, where ours is only on a node with a bridge.
	NATBefore, NATBeforeRouting []string
	// DropsInvalid is true if another program drops invalid packets at forward.
	DropsInvalid bool
	// KubeRouter are the chains of kube-router's firewall. LegacyUnread is why those in
	// iptables-legacy cannot be read.
	KubeRouter   []string
	LegacyUnread error
}

// Connections holds the facts about existing connections that a pass has read.
type Connections struct {
	// Unreadable is why the connection table cannot be read; then the other fields are not used.
	Unreadable error
	// Node are the node's addresses, Broadcasts those of its networks.
	Node, Broadcasts []netip.Addr
	// Found were found denied, by the rules at that time. Failed is why the last scan failed.
	Found  []cut.Cut
	Failed error
	// Read is true if the table was read from the kernel since the last commit. Refused are the
	// packets that it refused then.
	Read    bool
	Refused []program.Refused
	// More is true if Found is not complete.
	More bool
}

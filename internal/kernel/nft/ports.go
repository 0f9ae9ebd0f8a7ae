// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/podwall/podwall/internal/netpol/program"
)

// On a bridge the IP hooks see the bridge and not the port that a packet came
// from, so that one pod could forge the address of its neighbour. Only the
// physdev match of xtables knows the port there, and a kernel may refuse it in
// tables of family inet. So two small tables of ours, of the families ip and ip6,
// stand before the big one at the same hooks, and bind each address to its
// port. They are nat chains as well: an established packet never meets them.
const (
	// CounterPort counts what had an address that belongs to another port.
	CounterPort  = "drop-port"
	setPorts     = "ports"
	chainForged  = "forged"
	chainPortOf  = "port-"
	nodeOnBridge = "a bridged packet with an address of the node"
)

// MatchBridgePort matches packets that came in by a port of a bridge; if Other
// is set, by any port but that one.
type MatchBridgePort struct{ Other string }

// RenderPorts returns the content of our table of one family, which binds
// addresses to bridge ports; nil if no port is known.
func RenderPorts(f program.Family, n Node) *Table {
	t := &Table{Family: f, Counters: []string{CounterPort}}
	ports := &Set{Name: setPorts, Key: either(f == program.IPv6, Addr6, Addr4), Map: true, Comment: "which bridge port an address belongs to"}
	chains := map[string]*Chain{}
	for _, at := range n.Ported {
		if at.Port == "" || program.FamilyOf(at.Addr) != f {
			continue
		}
		name := chainPortOf + at.Port
		chains[name] = &Chain{Name: name, Rules: []Rule{{Statements: []Statement{MatchBridgePort{Other: at.Port}, Verdict{Goto, chainForged}}}}}
		ports.Entries = append(ports.Entries, Entry{Key: addrKey(at.Addr), Verdict: Verdict{Jump, name}})
	}
	if len(chains) == 0 {
		return nil
	}
	ports.Entries = oneEach(ports.Entries)
	t.Sets = []*Set{ports}
	bound := Lookup{Field: Source, Family: f, Set: setPorts, Map: true}
	for _, c := range portBases(n) {
		switch c.Base.Hook {
		case "prerouting":
			c.addGroups(n, f, bound)
		case "postrouting":
			c.add("", bound)
			c.addNodeOnBridge(n)
		default:
			c.add("", bound)
		}
		t.Chains = append(t.Chains, c)
	}
	t.Chains = append(t.Chains, &Chain{Name: chainForged, Rules: []Rule{dropped(CounterPort, "")}})
	for _, c := range chains {
		t.Chains = append(t.Chains, c)
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			c.Rules[i].family = f
		}
	}
	slices.SortFunc(t.Chains, compareChains)
	return t
}

// addNodeOnBridge drops what pods send with an address of the node. What comes in by
// a port behind which the node itself is may be the node's.
func (c *Chain) addNodeOnBridge(n Node) {
	match := []Statement{MatchNoInput{}}
	for _, port := range n.NodePorts {
		match = append(match, MatchBridgePort{Other: port})
	}
	if len(n.NodePorts) == 0 {
		match = append(match, MatchBridgePort{})
	}
	c.add(nodeOnBridge, append(match, MatchLocalSource{}, Verdict{Goto, chainForged})...)
}

// portBases returns the base chains, right before those of the big table.
func portBases(n Node) []*Chain {
	if n.FilterHook {
		return []*Chain{
			{Name: chainPrerouting + "-filter", Base: &Base{"filter", "prerouting", PriorityNAT - 1}},
			{Name: chainInput + "-filter", Base: &Base{"filter", "input", priorityFilterInput - 1}},
			{Name: chainPostrouting + "-filter", Base: &Base{"filter", "postrouting", priorityFilterPostrouting - 1}},
		}
	}
	return []*Chain{
		{Name: chainPrerouting, Base: &Base{"nat", "prerouting", PriorityNAT - 1}},
		{Name: chainInput, Base: &Base{"nat", "input", PriorityNAT - 1}},
		{Name: chainPostrouting, Base: &Base{"nat", "postrouting", PriorityNAT - 1}},
	}
}

// addGroups has the port asked of what goes to more than one receiver. The node's
// copy of it is remembered before the other chains are met (see everybody).
func (c *Chain) addGroups(n Node, f program.Family, bound Lookup) {
	for _, p := range groupPrefixes() {
		if program.FamilyOf(p.Addr()) == f {
			c.add("", MatchPrefix{Field: Destination, Prefix: p}, bound)
		}
	}
	switch {
	case f == program.IPv6: // has no broadcast
	case n.FilterHook:
		c.add("", MatchState{CtNew}, MatchBroadcast{}, bound)
	default:
		c.add("", MatchBroadcast{}, bound)
	}
}

// The layout and bits of xtables' struct xt_physdev_info.
const (
	ifNameLen    = 16
	physdevFlags = 4 * ifNameLen // two bytes: what is inverted, and what is asked
	physdevSize  = 72            // as aligned by the kernel
	physdevIn    = 1 << 0
	physdevHasIn = 1 << 3
)

func (s MatchBridgePort) encode(e *encoder) {
	info := make(xt.Unknown, physdevSize)
	info[physdevFlags+1] = physdevHasIn
	if s.Other != "" {
		copy(info, s.Other)
		for i := range len(s.Other) + 1 {
			info[ifNameLen+i] = 0xff // the name as a whole
		}
		info[physdevFlags], info[physdevFlags+1] = physdevIn, physdevHasIn|physdevIn
	}
	e.add(&expr.Match{Name: "physdev", Info: &info})
}

// text is what nft prints. It cannot read it back.
func (s MatchBridgePort) text() string {
	if s.Other == "" {
		return `xt match "physdev" /* from a bridge port */`
	}
	return fmt.Sprintf(`xt match "physdev" /* from another bridge port than %s */`, s.Other)
}

// Ports returns a connection to our table of family ip or ip6, over the same
// socket.
func (c *Conn) Ports(f program.Family) *Conn {
	view := *c
	view.table = &nftables.Table{Name: TableName, Family: nftables.TableFamilyIPv4}
	if f == program.IPv6 {
		view.table.Family = nftables.TableFamilyIPv6
	}
	return &view
}

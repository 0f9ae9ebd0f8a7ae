// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
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

// RenderPorts returns the content of our table of one family, which binds
// addresses to bridge ports; nil if no port is known.
func RenderPorts(f inet.Family, n program.Node) *nft.Table {
	t := &nft.Table{TableID: PortTable(f), Counters: []string{CounterPort}}
	ports := &nft.Set{Name: setPorts, Key: either(f == inet.IPv6, nft.Addr6, nft.Addr4), Map: true,
		Comment: "which bridge port an address belongs to"}
	chains := map[string]*nft.Chain{}
	for _, at := range n.Ported {
		if at.Port == "" || inet.FamilyOf(at.Addr) != f {
			continue
		}
		name := chainPortOf + at.Port
		chains[name] = &nft.Chain{Name: name, Rules: []nft.Rule{{Statements: []nft.Statement{nft.MatchBridgePort{Other: at.Port},
			nft.GoTo(chainForged)}}}}
		ports.Entries = append(ports.Entries, nft.Entry{Key: addrKey(at.Addr), Verdict: nft.JumpTo(name)})
	}
	if len(chains) == 0 {
		return nil
	}
	ports.Entries = oneEach(ports.Entries)
	t.Sets = []*nft.Set{ports}
	bound := nft.Lookup{Field: nft.Source, Family: f, Set: setPorts, Map: true}
	for _, c := range portBases(n) {
		switch c.Base.Hook {
		case "prerouting":
			addGroups(c, n, f, bound)
		case "postrouting":
			c.Add("", bound)
			addNodeOnBridge(c, n)
		default:
			c.Add("", bound)
		}
		t.Chains = append(t.Chains, c)
	}
	t.Chains = append(t.Chains, &nft.Chain{Name: chainForged, Rules: []nft.Rule{dropped(CounterPort, "")}})
	for _, c := range chains {
		t.Chains = append(t.Chains, c)
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			c.Rules[i].Family = f
		}
	}
	t.Sort()
	return t
}

// addNodeOnBridge drops what pods send with an address of the node. What comes in by
// a port behind which the node itself is may be the node's.
func addNodeOnBridge(c *nft.Chain, n program.Node) {
	match := []nft.Statement{nft.MatchNoInput{}}
	for _, port := range n.NodePorts {
		match = append(match, nft.MatchBridgePort{Other: port})
	}
	if len(n.NodePorts) == 0 {
		match = append(match, nft.MatchBridgePort{})
	}
	c.Add(nodeOnBridge, append(match, nft.MatchLocalSource{}, nft.GoTo(chainForged))...)
}

// portBases returns the base chains, right before those of the big table.
func portBases(n program.Node) []*nft.Chain {
	if n.FilterHook {
		return []*nft.Chain{
			{Name: chainPrerouting + "-filter", Base: &nft.Base{Type: "filter", Hook: "prerouting", Priority: PriorityNAT - 1}},
			{Name: chainInput + "-filter", Base: &nft.Base{Type: "filter", Hook: "input", Priority: priorityFilterInput - 1}},
			{Name: chainPostrouting + "-filter", Base: &nft.Base{Type: "filter", Hook: "postrouting", Priority: priorityFilterPostrouting - 1}},
		}
	}
	return []*nft.Chain{
		{Name: chainPrerouting, Base: &nft.Base{Type: "nat", Hook: "prerouting", Priority: PriorityNAT - 1}},
		{Name: chainInput, Base: &nft.Base{Type: "nat", Hook: "input", Priority: PriorityNAT - 1}},
		{Name: chainPostrouting, Base: &nft.Base{Type: "nat", Hook: "postrouting", Priority: PriorityNAT - 1}},
	}
}

// addGroups has the port asked of what goes to more than one receiver. The node's
// copy of it is remembered before the other chains are met (see everybody).
func addGroups(c *nft.Chain, n program.Node, f inet.Family, bound nft.Lookup) {
	for _, p := range groupPrefixes() {
		if inet.FamilyOf(p.Addr()) == f {
			c.Add("", nft.MatchPrefix{Field: nft.Destination, Prefix: p}, bound)
		}
	}
	switch {
	case f == inet.IPv6: // has no broadcast
	case n.FilterHook:
		c.Add("", nft.MatchState{States: nft.CtNew}, nft.MatchBroadcast{}, bound)
	default:
		c.Add("", nft.MatchBroadcast{}, bound)
	}
}

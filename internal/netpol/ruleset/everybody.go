// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A bridge gives a frame for everybody, or for a group, to its node too. There the
// kernel remembers the connection (br_nf_local_in, since Linux 6.8) whatever the
// chains behind say, and the next packet that fits meets no nat chain. So what
// would be remembered is judged before, where the bridge shows it first.

// bridged reports whether the node has a bridge; without one nothing of this is
// needed: the IP layer itself forwards no frame that is for more than one receiver.
func bridged(n program.Node) bool { return n.Bridges || len(n.Carried) > 0 }

// everybody returns the chains at prerouting. They judge packets to groups, and
// drop those to one receiver in frames for everybody: a host takes no such packet
// (RFC 1122, 3.3.6), so nobody misses them.
func everybody(n program.Node) []*nft.Chain {
	c := &nft.Chain{Name: chainPrerouting, Base: &nft.Base{Type: "nat", Hook: "prerouting", Priority: PriorityNAT}}
	if n.FilterHook {
		c.Name, c.Base.Type = chainPrerouting+"-filter", "filter"
		c.Add("what the node hears of itself", nft.MatchLooped{}, nft.Verdict{Kind: nft.Return})
	}
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setCarried}, nft.JumpTo(chainGroups))
	c.Add("", nft.MatchToHost{}, nft.Verdict{Kind: nft.Return})
	for _, f := range inet.Families {
		known := nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily("local", f)}
		c.Add("a pod is not everybody", known, nft.Count{Counter: CounterBroadcast}, nft.Verdict{Kind: nft.Drop})
	}
	if !n.OpenUnknown {
		c.Add("not where pods are", nft.Lookup{Field: nft.InputInterface, Set: setOpenLinks}, nft.Verdict{Kind: nft.Return})
		for _, p := range groupPrefixes() {
			c.Add("a group", nft.MatchPrefix{Field: nft.Destination, Prefix: p}, nft.Verdict{Kind: nft.Return})
		}
		c.Add("a group", nft.MatchBroadcast{}, nft.Verdict{Kind: nft.Return})
		c.Rules = append(c.Rules, dropped(CounterBroadcast, "what may be a pod is not everybody"))
	}
	return []*nft.Chain{c, groups(n), toGroup(n)}
}

// groupPrefixes are the addresses that mean more than one receiver on every link.
func groupPrefixes() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}
}

// groups finds what a bridge brings for more than one receiver, by its address:
// the frame may be for the node alone. A broadcast address of the node's networks
// costs a look at the routes. So a filter chain leaves it out where the frame is for
// one receiver and the connection was judged when it began.
func groups(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainGroups}
	for _, p := range groupPrefixes() {
		c.Add("", nft.MatchPrefix{Field: nft.Destination, Prefix: p}, nft.GoTo(chainToGroup))
	}
	if n.FilterHook {
		c.Add("", nft.MatchToHost{}, nft.MatchState{States: nft.CtEstablished}, nft.Verdict{Kind: nft.Return})
	}
	c.Add("", nft.MatchFamily{Family: inet.IPv4}, nft.MatchBroadcast{}, nft.GoTo(chainToGroup))
	return c
}

// toGroup judges what goes to a group, all copies at once: nothing gets to a bridge
// with a pod that is isolated for ingress. An answer proves nothing here, since a
// pod can forge the group's.
func toGroup(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainToGroup}
	if n.FilterHook { // untracked, it meets no nat chain
		addDiscovery(c, nft.Verdict{Kind: nft.Return})
	}
	c.Add("an isolated pod is there", nft.Lookup{Field: nft.InputInterface, Set: setIngressLinks},
		nft.Count{Counter: CounterUnlisted}, nft.Verdict{Kind: nft.Drop})
	addSource(c, n)
	addEgress(c)
	return c
}

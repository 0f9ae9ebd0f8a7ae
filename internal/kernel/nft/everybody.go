// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"

	"github.com/podwall/podwall/internal/netpol/program"
)

// A bridge gives a frame for everybody, or for a group, to its node too. There the
// kernel remembers the connection (br_nf_local_in, since Linux 6.8) whatever the
// chains behind say, and the next packet that fits meets no nat chain. So what
// would be remembered is judged before, where the bridge shows it first.

// bridged reports whether the node has a bridge; without one nothing of this is
// needed: the IP layer itself forwards no frame that is for more than one receiver.
func (n Node) bridged() bool { return n.Bridges || len(n.Carried) > 0 }

// everybody returns the chains at prerouting. They judge packets to groups, and
// drop those to one receiver in frames for everybody: a host takes no such packet
// (RFC 1122, 3.3.6), so nobody misses them.
func everybody(n Node) []*Chain {
	c := &Chain{Name: chainPrerouting, Base: &Base{"nat", "prerouting", PriorityNAT}}
	if n.FilterHook {
		c.Name, c.Base.Type = chainPrerouting+"-filter", "filter"
		c.add("what the node hears of itself", MatchLooped{}, Verdict{Kind: Return})
	}
	c.add("", Lookup{Field: InputInterface, Set: setCarried}, Verdict{Jump, chainGroups})
	c.add("", MatchToHost{}, Verdict{Kind: Return})
	for _, f := range program.Families {
		known := Lookup{Field: Destination, Family: f, Set: perFamily("local", f)}
		c.add("a pod is not everybody", known, Count{CounterBroadcast}, Verdict{Kind: Drop})
	}
	if n.Closed {
		c.add("not where pods are", Lookup{Field: InputInterface, Set: setOpenLinks}, Verdict{Kind: Return})
		for _, p := range groupPrefixes() {
			c.add("a group", MatchPrefix{Field: Destination, Prefix: p}, Verdict{Kind: Return})
		}
		c.add("a group", MatchBroadcast{}, Verdict{Kind: Return})
		c.Rules = append(c.Rules, dropped(CounterBroadcast, "what may be a pod is not everybody"))
	}
	return []*Chain{c, groups(n), toGroup(n)}
}

// groupPrefixes are the addresses that mean more than one receiver on every link.
func groupPrefixes() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}
}

// groups finds what a bridge brings for more than one receiver, by its address:
// the frame may be for the node alone. A broadcast address of the node's networks
// costs a look at the routes. So a filter chain leaves it out where the frame is for
// one receiver and the connection was judged when it began.
func groups(n Node) *Chain {
	c := &Chain{Name: chainGroups}
	for _, p := range groupPrefixes() {
		c.add("", MatchPrefix{Field: Destination, Prefix: p}, Verdict{Goto, chainToGroup})
	}
	if n.FilterHook {
		c.add("", MatchToHost{}, MatchState{CtEstablished}, Verdict{Kind: Return})
	}
	c.add("", MatchFamily{program.IPv4}, MatchBroadcast{}, Verdict{Goto, chainToGroup})
	return c
}

// toGroup judges what goes to a group, all copies at once: nothing gets to a bridge
// with a pod that is isolated for ingress. An answer proves nothing here, since a
// pod can forge the group's.
func toGroup(n Node) *Chain {
	c := &Chain{Name: chainToGroup}
	if n.FilterHook { // untracked, it meets no nat chain
		c.addDiscovery(Verdict{Kind: Return})
	}
	c.add("an isolated pod is there", Lookup{Field: InputInterface, Set: setIngressLinks}, Count{CounterUnlisted}, Verdict{Kind: Drop})
	c.addSource(n)
	c.addEgress()
	return c
}

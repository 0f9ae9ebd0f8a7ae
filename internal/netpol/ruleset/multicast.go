// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A bridge delivers a broadcast or multicast frame to the node itself as well. There
// the kernel confirms the connection (br_nf_local_in, since Linux 6.8) whatever later
// chains decide, and the next packet of it traverses no nat chain. So such packets are
// judged earlier, at prerouting.

// bridged reports whether the node has a bridge. Without one these chains are not
// needed: the IP layer does not forward broadcast or multicast frames.
func bridged(n program.Node) bool { return n.Bridges || len(n.ClosedBridges) > 0 }

// preroutingChains returns the chains at prerouting. They judge multicast, and drop
// unicast packets in broadcast frames: hosts ignore those anyway (RFC 1122, 3.3.6).
func preroutingChains(n program.Node) []*nft.Chain {
	c := &nft.Chain{Name: chainPrerouting, Base: &nft.Base{Type: "nat", Hook: "prerouting", Priority: PriorityNAT}}
	if n.FilterHook {
		c.Name, c.Base.Type = chainPrerouting+"-filter", "filter"
		c.Add("own multicast copy", nft.MatchLooped{}, nft.Verdict{Kind: nft.Return})
	}
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setPodBridges}, nft.JumpTo(chainMulticast))
	c.Add("", nft.MatchToHost{}, nft.Verdict{Kind: nft.Return})
	for _, f := range inet.Families {
		known := nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily(setLocalPods, f)}
		c.Add("unicast IP in a broadcast frame", known, nft.Count{Counter: CounterBroadcast},
			nft.Verdict{Kind: nft.Drop})
	}
	if !n.OpenUnknown {
		c.Add("non-pod interface", nft.Lookup{Field: nft.InputInterface, Set: setNonPodLinks},
			nft.Verdict{Kind: nft.Return})
		for _, p := range multicastPrefixes() {
			c.Add("multicast or broadcast address", nft.MatchPrefix{Field: nft.Destination, Prefix: p},
				nft.Verdict{Kind: nft.Return})
		}
		c.Add("multicast or broadcast address", nft.MatchBroadcast{}, nft.Verdict{Kind: nft.Return})
		c.Rules = append(c.Rules, dropped(CounterBroadcast, "unicast IP in a broadcast frame"))
	}
	return []*nft.Chain{c, multicast(n), multicastToPods(n)}
}

// multicastPrefixes are the multicast and broadcast addresses of every link.
func multicastPrefixes() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("ff00::/8")}
}

// multicast selects multicast and broadcast by IP address, not by frame: the frame may
// be addressed to the node alone. Matching a subnet's broadcast address costs a route
// lookup, so a filter chain skips it for unicast frames of established connections.
func multicast(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainMulticast}
	for _, p := range multicastPrefixes() {
		c.Add("", nft.MatchPrefix{Field: nft.Destination, Prefix: p}, nft.GoTo(chainMulticastToPods))
	}
	if n.FilterHook {
		c.Add("", nft.MatchToHost{}, nft.MatchState{States: nft.CtEstablished}, nft.Verdict{Kind: nft.Return})
	}
	c.Add("", nft.MatchFamily{Family: inet.IPv4}, nft.MatchBroadcast{}, nft.GoTo(chainMulticastToPods))
	return c
}

// multicastToPods judges all copies of a multicast packet at once: none passes to a
// bridge with a pod that is isolated for ingress. A reply from a multicast address
// proves nothing, since a pod can forge it.
func multicastToPods(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainMulticastToPods}
	if n.FilterHook { // untracked, it meets no nat chain
		addDiscovery(c, nft.Verdict{Kind: nft.Return})
	}
	c.Add("isolated pod behind", nft.Lookup{Field: nft.InputInterface, Set: setIngressLinks},
		nft.Count{Counter: CounterUnknownPod}, nft.Verdict{Kind: nft.Drop})
	addAntispoof(c, n)
	addEgress(c)
	return c
}

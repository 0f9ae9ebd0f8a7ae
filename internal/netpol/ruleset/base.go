// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// baseChains returns the chains that are always there, in the order in which a
// packet meets them.
func baseChains(p *program.Program, n program.Node) []*nft.Chain {
	chains := []*nft.Chain{
		postrouting(n),
		toPod(n),
		input(n),
		toNode(n),
		antispoof(n),
		antispoofBridged(n),
		tracking(),
		{Name: chainSelfTest, Rules: []nft.Rule{dropped(CounterSelfTest, "drops the self-test's packets")}},
	}
	if bridged(n) {
		chains = append(chains, preroutingChains(n)...)
	}
	if !n.NoGuard && !n.FilterHook {
		chains = append(chains, guard(n)...)
	}
	if n.Cut {
		chains = append(chains, cutRules())
	}
	if hasUntrackedInput(p, n) {
		chains = append(chains, untrackedInput()...)
	}
	if judgesICMPErrors(p, n) {
		chains = append(chains, errorChains(n)...)
	}
	return chains
}

func hasUntrackedInput(p *program.Program, n program.Node) bool {
	return !n.FilterHook && (isolatesEgress(p) || !n.OpenUnknown && !n.NoGuard)
}

func isolatesEgress(p *program.Program) bool {
	for _, pod := range p.Pods {
		if pod.Egress != "" {
			return true
		}
	}
	return false
}

// postrouting judges everything that leaves the node's IP layer: first the
// egress of the source, then the ingress of the destination. The destination
// is the real one (after DNAT), the source not yet masqueraded.
func postrouting(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainPostrouting, Base: &nft.Base{Type: "nat", Hook: "postrouting", Priority: PriorityNAT}}
	if n.FilterHook {
		c.Name, c.Base = chainPostrouting+"-filter", &nft.Base{Type: "filter", Hook: "postrouting",
			Priority: priorityFilterPostrouting}
		c.Rules = trackedFirst()
	}
	addCut(c, n)
	addAntispoof(c, n)
	if n.OpenUnknown {
		c.Add("bridged", nft.Lookup{Field: nft.OutputInterface, Set: setPodLinks}, nft.MatchNoInput{},
			nft.JumpTo(chainAntispoof))
	}
	addEgress(c)
	c.Add("", nft.GoTo(chainToPod))
	return c
}

// trackedFirst returns the rules by which a filter chain judges connections instead of
// packets. ICMP errors about a connection are judged on their own; connections that a
// conntrack helper expects are judged like any other.
func trackedFirst() []nft.Rule {
	var c nft.Chain
	c.Add("", nft.MatchState{States: nft.CtEstablished}, nft.Verdict{Kind: nft.Accept})
	for _, f := range inet.Families {
		c.Add("", nft.MatchICMPAny{Family: f}, nft.MatchState{States: nft.CtRelated}, nft.GoTo(chainICMPErrors))
	}
	addDiscovery(&c, nft.Verdict{Kind: nft.Accept})
	return c.Rules
}

// addDiscovery frees IPv6 neighbour discovery and multicast listener reports,
// without which there is no IPv6 at all. Conntrack does not track them. Only as
// they are on a link: never through a router, reports never to one receiver.
// Otherwise these types would be a tunnel between nodes.
func addDiscovery(c *nft.Chain, v nft.Verdict) {
	multicast := nft.MatchPrefix{Field: nft.Destination, Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8)}
	c.Add("multicast listeners", multicast, nft.MatchICMP{First: 130, Last: 132}, v)
	c.Add("neighbour discovery", nft.MatchHopLimit{Hops: 255}, nft.MatchICMP{First: 133, Last: 137}, v)
	c.Add("multicast listeners", multicast, nft.MatchICMP{First: 143, Last: 143}, v)
}

// addEgress calls the egress chain of the source. The walk continues behind it if the
// chain allows the packet, or if there is none.
func addEgress(c *nft.Chain) {
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.Source, Family: f, Set: perFamily(setPodEgress, f), Map: true})
	}
}

// toPod judges the ingress of local pods. Behind interfaces that may lead to pods,
// addresses of no known pod are closed to everyone but the node: link-local addresses
// of isolated pods, addresses that a pod took by itself, and, unless the node is open,
// pods not yet known.
func toPod(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainToPod}
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily(setPodIngress, f), Map: true})
	}
	if !n.OpenUnknown {
		c.Add("non-pod interface", nft.Lookup{Field: nft.OutputInterface, Set: setNonPodLinks},
			nft.Verdict{Kind: nft.Accept})
	} else {
		c.Add("no isolated pod behind", nft.Lookup{Field: nft.OutputInterface, Set: setIngressLinks, Negate: true},
			nft.Verdict{Kind: nft.Accept})
	}
	c.Add("from the node to an unknown pod", nft.MatchNoInput{}, nft.MatchLocalSource{}, nft.Verdict{Kind: nft.Accept})
	if !n.OpenUnknown {
		addLinkScope(c, nft.Destination, nft.OutputInterface, setIngressLinks, nft.Verdict{Kind: nft.Accept})
	}
	c.Rules = append(c.Rules, dropped(CounterUnknownPod, "unknown destination"))
	return c
}

// addLinkScope permits unisolated pods the use of their link: link-local addresses,
// multicast, broadcast. With further conditions, a packet with a link-local address of
// IPv4 must also meet one of them (Linux forwards none of IPv6).
func addLinkScope(c *nft.Chain, f, iface nft.Field, isolated string, v nft.Verdict, oneOf ...nft.Statement) {
	of := []nft.Statement{nft.Lookup{Field: iface, Set: setPodLinks}, nft.Lookup{Field: iface, Set: isolated,
		Negate: true}}
	add := func(match ...nft.Statement) {
		c.Add("link-local traffic of unisolated pods", slices.Concat(match, of, []nft.Statement{v})...)
	}
	prefix := func(f nft.Field, text string) nft.Statement {
		return nft.MatchPrefix{Field: f, Prefix: netip.MustParsePrefix(text)}
	}
	if f == nft.Source { // from no address only to groups, as DHCP and IGMP do
		add(prefix(f, "0.0.0.0/32"), prefix(nft.Destination, "224.0.0.0/3"))
	} else {
		add(prefix(f, "255.255.255.255/32"))
	}
	for _, s := range oneOf {
		add(prefix(f, "169.254.0.0/16"), s)
	}
	if len(oneOf) == 0 {
		add(prefix(f, "169.254.0.0/16"))
	}
	if f == nft.Destination {
		add(prefix(f, "224.0.0.0/4"))
	}
	add(prefix(f, "fe80::/10"))
	if f == nft.Destination {
		add(prefix(f, "ff00::/8"))
		c.Add("link-local traffic of unisolated pods", append(of, nft.MatchBroadcast{}, v)...)
	}
}

// input judges what pods send to their own node.
func input(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainInput, Base: &nft.Base{Type: "nat", Hook: "input", Priority: PriorityNAT}}
	if n.FilterHook {
		c.Name, c.Base = chainInput+"-filter", &nft.Base{Type: "filter", Hook: "input", Priority: priorityFilterInput}
		c.Rules = trackedFirst()
	}
	c.Add("", nft.GoTo(chainToNode))
	return c
}

func toNode(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainToNode}
	addDiscovery(c, nft.Verdict{Kind: nft.Return})
	addAntispoof(c, n)
	addEgress(c)
	return c
}

// addAntispoof has the source of packets from pods checked. Packets without an input
// interface count as from pods.
func addAntispoof(c *nft.Chain, n program.Node) { addAntispoofTo(c, n, chainAntispoof) }

// addAntispoofTo has it checked by the named chain.
func addAntispoofTo(c *nft.Chain, n program.Node, chain string) {
	if !n.OpenUnknown {
		c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setNonPodLinks, Negate: true}, nft.JumpTo(chain))
		return
	}
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setPodLinks}, nft.JumpTo(chain))
}

// antispoof drops packets whose source address does not belong to their input
// interface: spoofed ones, and those of pods not yet known.
func antispoof(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainAntispoof}
	c.Add("", nft.MatchNoInput{}, nft.GoTo(chainAntispoofBridged))
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.InputSource, Family: f, Set: perFamily(setIfaceSource, f)},
			nft.Verdict{Kind: nft.Return})
	}
	addLinkScope(c, nft.Source, nft.InputInterface, setEgressLinks, nft.Verdict{Kind: nft.Return}, stays(n)...)
	c.Rules = append(c.Rules, dropped(CounterSpoofed, "unknown source"))
	return c
}

// stays returns the conditions for packets that stay on the interfaces of pods: only
// there can a pod's link-local address be told from others (RFC 3927, 7: routers
// forward none).
func stays(n program.Node) []nft.Statement {
	if !n.OpenUnknown {
		return []nft.Statement{nft.Lookup{Field: nft.OutputInterface, Set: setNonPodLinks, Negate: true}}
	}
	return []nft.Statement{nft.MatchNoOutput{}, nft.Lookup{Field: nft.OutputInterface, Set: setPodLinks}}
}

// antispoofBridged does the same for packets without an input interface: the node's
// own, and those that a bridge forwards by itself, whose source must be on that bridge.
func antispoofBridged(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainAntispoofBridged}
	if !n.OpenUnknown {
		c.Add("non-pod interface", nft.Lookup{Field: nft.OutputInterface, Set: setNonPodLinks},
			nft.Verdict{Kind: nft.Return})
	}
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.OutputSource, Family: f, Set: perFamily(setIfaceSource, f)},
			nft.Verdict{Kind: nft.Return})
	}
	c.Add("from the node itself", nft.MatchLocalSource{}, nft.Verdict{Kind: nft.Return})
	// `reject with tcp reset` answers a pod with the address that the pod called. The kernel gives such a packet the
	// connection that it refuses; of packets that arrive no reset is ever related.
	c.Add("refused on this node", nft.MatchProtocol{Protocol: inet.TCP}, nft.MatchState{States: nft.CtRelated},
		nft.MatchReset{}, nft.Verdict{Kind: nft.Accept})
	addLinkScope(c, nft.Source, nft.OutputInterface, setEgressLinks, nft.Verdict{Kind: nft.Return})
	c.Rules = append(c.Rules, dropped(CounterSpoofed, "unknown source"))
	return c
}

func dropped(counter, comment string) nft.Rule {
	return nft.Rule{Statements: []nft.Statement{nft.Count{Counter: counter}, nft.Verdict{Kind: nft.Drop}},
		Comment: comment}
}

// tracking is a chain that no rule jumps to. A nat chain does not enable connection
// tracking by itself, and without tracking it is never entered; any ct expression in an
// inet table enables it for both families.
func tracking() *nft.Chain {
	c := &nft.Chain{Name: chainTracking}
	c.Add("enables connection tracking", nft.MatchState{States: nft.CtNew}, nft.Verdict{Kind: nft.Return})
	return c
}

// guard drops invalid and untracked packets: they traverse no nat chain. It also has
// related packets judged, which traverse none either.
func guard(n program.Node) []*nft.Chain {
	base := &nft.Chain{Name: chainGuard, Base: &nft.Base{Type: "filter", Hook: "forward", Priority: priorityGuard}}
	base.Add("", nft.MatchState{States: nft.CtInvalid | nft.CtUntracked | nft.CtRelated}, nft.GoTo(chainGuarded))
	c := &nft.Chain{Name: chainGuarded}
	c.Add("", nft.MatchState{States: nft.CtRelated}, nft.GoTo(chainRelated))
	addDiscovery(c, nft.Verdict{Kind: nft.Return})
	addCut(c, n)
	behind := nft.Lookup{Field: nft.OutputInterface, Set: setIngressLinks}
	if !n.OpenUnknown {
		behind = nft.Lookup{Field: nft.OutputInterface, Set: setNonPodLinks, Negate: true}
	}
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.Source, Family: f, Set: perFamily(setGuardEgress, f)},
			nft.Count{Counter: CounterInvalid},
			nft.Verdict{Kind: nft.Drop})
		c.Add("", nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily(setGuardIngress, f)},
			nft.Count{Counter: CounterInvalid},
			nft.Verdict{Kind: nft.Drop})
		unlisted := nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily(setLocalPods, f), Negate: true}
		c.Add("unknown destination", nft.MatchFamily{Family: f}, behind, unlisted,
			nft.Count{Counter: CounterInvalid}, nft.Verdict{Kind: nft.Drop})
		if !n.OpenUnknown {
			from := nft.Lookup{Field: nft.InputInterface, Set: setNonPodLinks, Negate: true}
			unlisted.Field = nft.Source
			c.Add("unknown source", nft.MatchFamily{Family: f}, from, unlisted, nft.Count{Counter: CounterInvalid},
				nft.Verdict{Kind: nft.Drop})
		}
	}
	return []*nft.Chain{base, c}
}

// guardSets are the addresses whose stray packets the guard drops.
func guardSets(p *program.Program) []*nft.Set {
	var sets []*nft.Set
	for _, f := range inet.Families {
		addr := either(f == inet.IPv6, nft.Addr6, nft.Addr4)
		from := &nft.Set{Name: perFamily(setGuardEgress, f), Key: addr, Comment: "pods isolated for egress"}
		to := &nft.Set{Name: perFamily(setGuardIngress, f), Key: addr, Comment: "pods isolated for ingress"}
		var egress, ingress []inet.Element
		for _, pod := range p.Pods {
			e := inet.Element{Addr: pod.Addr}
			if inet.FamilyOf(pod.Addr) != f {
				continue
			}
			if pod.Egress != "" {
				egress = append(egress, e)
			}
			if pod.Ingress != "" {
				ingress = append(ingress, e)
			}
		}
		from.Elements, to.Elements = immutable.Of(egress...), immutable.Of(ingress...)
		sets = append(sets, from, to)
	}
	return sets
}

// untrackedInput judges what never enters the nat chain at input: packets that
// another program's notrack rule (a node-local DNS cache brings one) keeps from being
// tracked, invalid ones, and errors.
func untrackedInput() []*nft.Chain {
	base := &nft.Chain{Name: chainUntracked, Base: &nft.Base{Type: "filter", Hook: "input", Priority: priorityGuard}}
	base.Add("", nft.MatchState{States: nft.CtInvalid | nft.CtUntracked | nft.CtRelated}, nft.GoTo(chainUnjudged))
	c := &nft.Chain{Name: chainUnjudged}
	c.Add("", nft.MatchState{States: nft.CtRelated}, nft.GoTo(chainRelated))
	c.Add("", nft.GoTo(chainToNode))
	return []*nft.Chain{base, c}
}

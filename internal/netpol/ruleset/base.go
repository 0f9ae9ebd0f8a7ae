// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"slices"

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
		knownSource(n),
		noInput(n),
		tracking(),
		{Name: chainSelfTest, Rules: []nft.Rule{dropped(CounterSelfTest, "must drop what the self-test sends")}},
	}
	if bridged(n) {
		chains = append(chains, everybody(n)...)
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
	if judgesErrors(p, n) {
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
		c.Name, c.Base = chainPostrouting+"-filter", &nft.Base{Type: "filter", Hook: "postrouting", Priority: priorityFilterPostrouting}
		c.Rules = trackedFirst()
	}
	addCut(c, n)
	addSource(c, n)
	if n.OpenUnknown {
		c.Add("inside one bridge", nft.Lookup{Field: nft.OutputInterface, Set: setPodLinks}, nft.MatchNoInput{}, nft.JumpTo(chainSource))
	}
	addEgress(c)
	c.Add("", nft.GoTo(chainToPod))
	return c
}

// trackedFirst is what a filter chain needs before it can judge connections
// instead of packets. Errors about a connection are judged on their own;
// connections that a helper expects are judged like any other.
func trackedFirst() []nft.Rule {
	var c nft.Chain
	c.Add("", nft.MatchState{States: nft.CtEstablished}, nft.Verdict{Kind: nft.Accept})
	for _, f := range inet.Families {
		c.Add("", nft.MatchICMPAny{Family: f}, nft.MatchState{States: nft.CtRelated}, nft.GoTo(chainErrors))
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

// addEgress calls the egress chain of the source; it comes back if the chain
// allows the packet, or if there is none.
func addEgress(c *nft.Chain) {
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.Source, Family: f, Set: perFamily("from", f), Map: true})
	}
}

// toPod judges the ingress of local pods. What no pod has is closed behind the
// interfaces that may lead to one, for everybody but the node: link-local
// addresses of isolated pods, addresses that a pod took by itself, and, if the
// node is closed, pods that nobody has told us of yet.
func toPod(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainToPod}
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily("to", f), Map: true})
	}
	if !n.OpenUnknown {
		c.Add("not where pods are", nft.Lookup{Field: nft.OutputInterface, Set: setOpenLinks}, nft.Verdict{Kind: nft.Accept})
	} else {
		c.Add("no isolated pod there", nft.Lookup{Field: nft.OutputInterface, Set: setIngressLinks, Negate: true}, nft.Verdict{Kind: nft.Accept})
	}
	c.Add("the node to no known pod", nft.MatchNoInput{}, nft.MatchLocalSource{}, nft.Verdict{Kind: nft.Accept})
	if !n.OpenUnknown {
		addLinkScope(c, nft.Destination, nft.OutputInterface, setIngressLinks, nft.Verdict{Kind: nft.Accept})
	}
	c.Rules = append(c.Rules, dropped(CounterUnlisted, "no known pod"))
	return c
}

// addLinkScope lets open pods use their link as they could without us:
// link-local addresses, multicast, broadcast. If there are further conditions, one
// of them must be met too by what has a link-local address of IPv4 (Linux forwards
// none of IPv6).
func addLinkScope(c *nft.Chain, f, iface nft.Field, isolated string, v nft.Verdict, oneOf ...nft.Statement) {
	of := []nft.Statement{nft.Lookup{Field: iface, Set: setPodLinks}, nft.Lookup{Field: iface, Set: isolated, Negate: true}}
	add := func(match ...nft.Statement) {
		c.Add("open pods on their link", slices.Concat(match, of, []nft.Statement{v})...)
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
		c.Add("open pods on their link", append(of, nft.MatchBroadcast{}, v)...)
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
	addSource(c, n)
	addEgress(c)
	return c
}

// addSource has the source checked of what comes from where pods are. Packets
// without an input interface come from no interface that is open.
func addSource(c *nft.Chain, n program.Node) { addSourceTo(c, n, chainSource) }

// addSourceTo has it checked by the named chain.
func addSourceTo(c *nft.Chain, n program.Node, chain string) {
	if !n.OpenUnknown {
		c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setOpenLinks, Negate: true}, nft.JumpTo(chain))
		return
	}
	c.Add("", nft.Lookup{Field: nft.InputInterface, Set: setPodLinks}, nft.JumpTo(chain))
}

// knownSource drops what has a source address that does not belong to the
// interface it came from: forged ones, and those of pods that nobody has told
// us of yet.
func knownSource(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainSource}
	c.Add("", nft.MatchNoInput{}, nft.GoTo(chainNoInput))
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.InputSource, Family: f, Set: perFamily("source", f)}, nft.Verdict{Kind: nft.Return})
	}
	addLinkScope(c, nft.Source, nft.InputInterface, setEgressLinks, nft.Verdict{Kind: nft.Return}, stays(n)...)
	c.Rules = append(c.Rules, dropped(CounterSource, "of no known pod"))
	return c
}

// stays are conditions, of which each is met by packets that do not leave the
// interfaces of pods: elsewhere nobody could tell a pod's link-local address from
// other people's (RFC 3927, 7: routers forward none).
func stays(n program.Node) []nft.Statement {
	if !n.OpenUnknown {
		return []nft.Statement{nft.Lookup{Field: nft.OutputInterface, Set: setOpenLinks, Negate: true}}
	}
	return []nft.Statement{nft.MatchNoOutput{}, nft.Lookup{Field: nft.OutputInterface, Set: setPodLinks}}
}

// noInput does the same for packets without an input interface: the node's own,
// and those that a bridge forwards by itself, whose source must be on the same
// bridge.
func noInput(n program.Node) *nft.Chain {
	c := &nft.Chain{Name: chainNoInput}
	if !n.OpenUnknown {
		c.Add("not where pods are", nft.Lookup{Field: nft.OutputInterface, Set: setOpenLinks}, nft.Verdict{Kind: nft.Return})
	}
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.OutputSource, Family: f, Set: perFamily("source", f)}, nft.Verdict{Kind: nft.Return})
	}
	c.Add("the node", nft.MatchLocalSource{}, nft.Verdict{Kind: nft.Return})
	addLinkScope(c, nft.Source, nft.OutputInterface, setEgressLinks, nft.Verdict{Kind: nft.Return})
	c.Rules = append(c.Rules, dropped(CounterSource, "of no known pod"))
	return c
}

func dropped(counter, comment string) nft.Rule {
	return nft.Rule{Statements: []nft.Statement{nft.Count{Counter: counter}, nft.Verdict{Kind: nft.Drop}}, Comment: comment}
}

// tracking is a chain that nothing jumps to. A nat chain does not switch
// connection tracking on by itself, and without tracking it is never entered;
// any ct expression in an inet table switches it on for both families.
func tracking() *nft.Chain {
	c := &nft.Chain{Name: chainTracking}
	c.Add("switches connection tracking on", nft.MatchState{States: nft.CtNew}, nft.Verdict{Kind: nft.Return})
	return c
}

// guard drops what conntrack could not place in a connection: such packets
// never enter a nat chain. Neither do errors about one.
func guard(n program.Node) []*nft.Chain {
	base := &nft.Chain{Name: chainGuard, Base: &nft.Base{Type: "filter", Hook: "forward", Priority: priorityGuard}}
	base.Add("", nft.MatchState{States: nft.CtInvalid | nft.CtUntracked | nft.CtRelated}, nft.GoTo(chainGuarded))
	c := &nft.Chain{Name: chainGuarded}
	c.Add("", nft.MatchState{States: nft.CtRelated}, nft.GoTo(chainRelated))
	addDiscovery(c, nft.Verdict{Kind: nft.Return})
	addCut(c, n)
	behind := nft.Lookup{Field: nft.OutputInterface, Set: setIngressLinks}
	if !n.OpenUnknown {
		behind = nft.Lookup{Field: nft.OutputInterface, Set: setOpenLinks, Negate: true}
	}
	for _, f := range inet.Families {
		c.Add("", nft.Lookup{Field: nft.Source, Family: f, Set: perFamily("guard-from", f)}, nft.Count{Counter: CounterGuard},
			nft.Verdict{Kind: nft.Drop})
		c.Add("", nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily("guard-to", f)}, nft.Count{Counter: CounterGuard},
			nft.Verdict{Kind: nft.Drop})
		unlisted := nft.Lookup{Field: nft.Destination, Family: f, Set: perFamily("local", f), Negate: true}
		c.Add("to no known pod", nft.MatchFamily{Family: f}, behind, unlisted, nft.Count{Counter: CounterGuard}, nft.Verdict{Kind: nft.Drop})
		if !n.OpenUnknown {
			from := nft.Lookup{Field: nft.InputInterface, Set: setOpenLinks, Negate: true}
			unlisted.Field = nft.Source
			c.Add("from no known pod", nft.MatchFamily{Family: f}, from, unlisted, nft.Count{Counter: CounterGuard}, nft.Verdict{Kind: nft.Drop})
		}
	}
	return []*nft.Chain{base, c}
}

// guardSets are the addresses whose stray packets the guard drops.
func guardSets(p *program.Program) []*nft.Set {
	var sets []*nft.Set
	for _, f := range inet.Families {
		addr := either(f == inet.IPv6, nft.Addr6, nft.Addr4)
		from := &nft.Set{Name: perFamily("guard-from", f), Key: addr, Comment: "isolated for egress"}
		to := &nft.Set{Name: perFamily("guard-to", f), Key: addr, Comment: "isolated for ingress"}
		for _, pod := range p.Pods {
			e := inet.Element{Addr: pod.Addr}
			if inet.FamilyOf(pod.Addr) != f {
				continue
			}
			if pod.Egress != "" {
				from.Elements = from.Elements.With(e)
			}
			if pod.Ingress != "" {
				to.Elements = to.Elements.With(e)
			}
		}
		sets = append(sets, from, to)
	}
	return sets
}

// untrackedInput judges what never enters the nat chain at input: packets that
// somebody's notrack rule (a node-local DNS cache brings one) keeps from being
// tracked, invalid ones, and errors.
func untrackedInput() []*nft.Chain {
	base := &nft.Chain{Name: chainUntracked, Base: &nft.Base{Type: "filter", Hook: "input", Priority: priorityGuard}}
	base.Add("", nft.MatchState{States: nft.CtInvalid | nft.CtUntracked | nft.CtRelated}, nft.GoTo(chainUnjudged))
	c := &nft.Chain{Name: chainUnjudged}
	c.Add("", nft.MatchState{States: nft.CtRelated}, nft.GoTo(chainRelated))
	c.Add("", nft.GoTo(chainToNode))
	return []*nft.Chain{base, c}
}

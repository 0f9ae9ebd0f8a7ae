// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"

	"github.com/podwall/podwall/internal/netpol/program"
)

// baseChains returns the chains that are always there, in the order in which a
// packet meets them.
func baseChains(p *program.Program, n Node) []*Chain {
	chains := []*Chain{
		postrouting(n),
		toPod(n),
		input(n),
		toNode(n),
		knownSource(),
		noInput(n),
		tracking(),
		{Name: chainSelfTest, Rules: []Rule{dropped(CounterSelfTest, "must drop what the self-test sends")}},
	}
	if n.bridged() {
		chains = append(chains, everybody(n)...)
	}
	if n.Guard && !n.FilterHook {
		chains = append(chains, guard(n)...)
	}
	if n.Cut {
		chains = append(chains, cutRules())
	}
	if !n.FilterHook && (isolatesEgress(p) || n.Closed && n.Guard) {
		chains = append(chains, untrackedInput())
	}
	return chains
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
func postrouting(n Node) *Chain {
	c := &Chain{Name: chainPostrouting, Base: &Base{"nat", "postrouting", PriorityNAT}}
	if n.FilterHook {
		c.Name, c.Base = chainPostrouting+"-filter", &Base{"filter", "postrouting", priorityFilterPostrouting}
		c.Rules = trackedFirst()
	}
	c.addCut(n)
	c.addSource(n)
	if !n.Closed {
		c.add("inside one bridge", Lookup{Field: OutputInterface, Set: setPodLinks}, MatchNoInput{}, Verdict{Jump, chainSource})
	}
	c.addEgress()
	c.add("", Verdict{Goto, chainToPod})
	return c
}

// trackedFirst is what a filter chain needs before it can judge connections
// instead of packets. Only errors about a connection pass as related;
// connections that a helper expects are judged like any other.
func trackedFirst() []Rule {
	var c Chain
	c.add("", MatchState{CtEstablished}, Verdict{Kind: Accept})
	for _, f := range program.Families {
		c.add("", MatchICMPAny{f}, MatchState{CtRelated}, Verdict{Kind: Accept})
	}
	c.addDiscovery(Verdict{Kind: Accept})
	return c.Rules
}

// addDiscovery frees IPv6 neighbour discovery and multicast listener reports,
// without which there is no IPv6 at all. Conntrack does not track them. Only as
// they are on a link: never through a router, reports never to one receiver.
// Otherwise these types would be a tunnel between nodes.
func (c *Chain) addDiscovery(v Verdict) {
	multicast := MatchPrefix{Field: Destination, Prefix: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8)}
	c.add("multicast listeners", multicast, MatchICMP{130, 132}, v)
	c.add("neighbour discovery", MatchHopLimit{255}, MatchICMP{133, 137}, v)
	c.add("multicast listeners", multicast, MatchICMP{143, 143}, v)
}

// addEgress calls the egress chain of the source; it comes back if the chain
// allows the packet, or if there is none.
func (c *Chain) addEgress() {
	for _, f := range program.Families {
		c.add("", Lookup{Field: Source, Family: f, Set: perFamily("from", f), Map: true})
	}
}

func (c *Chain) add(comment string, s ...Statement) {
	c.Rules = append(c.Rules, Rule{Statements: s, Comment: comment})
}

// toPod judges the ingress of local pods. What no pod has is closed behind the
// interfaces that may lead to one, for everybody but the node: link-local
// addresses of isolated pods, addresses that a pod took by itself, and, if the
// node is closed, pods that nobody has told us of yet.
func toPod(n Node) *Chain {
	c := &Chain{Name: chainToPod}
	for _, f := range program.Families {
		c.add("", Lookup{Field: Destination, Family: f, Set: perFamily("to", f), Map: true})
	}
	if n.Closed {
		c.add("not where pods are", Lookup{Field: OutputInterface, Set: setOpenLinks}, Verdict{Kind: Accept})
	} else {
		c.add("no isolated pod there", Lookup{Field: OutputInterface, Set: setIngressLinks, Negate: true}, Verdict{Kind: Accept})
	}
	c.add("the node to no known pod", MatchNoInput{}, MatchLocalSource{}, Verdict{Kind: Accept})
	if n.Closed {
		c.addLinkScope(Destination, OutputInterface, setIngressLinks, Verdict{Kind: Accept})
	}
	c.Rules = append(c.Rules, dropped(CounterUnlisted, "no known pod"))
	return c
}

// linkScope are the addresses that mean somebody on the same link.
func linkScope(f Field) []netip.Prefix {
	if f == Source {
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}
	}
	return []netip.Prefix{netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8")}
}

// addLinkScope lets open pods use their link as they could without us:
// link-local addresses, multicast, broadcast.
func (c *Chain) addLinkScope(f, iface Field, isolated string, v Verdict) {
	of := []Statement{Lookup{Field: iface, Set: setPodLinks}, Lookup{Field: iface, Set: isolated, Negate: true}}
	for _, p := range linkScope(f) {
		c.add("open pods on their link", append([]Statement{MatchPrefix{Field: f, Prefix: p}}, append(of, v)...)...)
	}
	if f == Destination {
		c.add("open pods on their link", append(of, MatchBroadcast{}, v)...)
	}
}

// input judges what pods send to their own node.
func input(n Node) *Chain {
	c := &Chain{Name: chainInput, Base: &Base{"nat", "input", PriorityNAT}}
	if n.FilterHook {
		c.Name, c.Base = chainInput+"-filter", &Base{"filter", "input", priorityFilterInput}
		c.Rules = trackedFirst()
	}
	c.add("", Verdict{Goto, chainToNode})
	return c
}

func toNode(n Node) *Chain {
	c := &Chain{Name: chainToNode}
	c.addDiscovery(Verdict{Kind: Return})
	c.addSource(n)
	c.addEgress()
	return c
}

// addSource has the source checked of what comes from where pods are. Packets
// without an input interface come from no interface that is open.
func (c *Chain) addSource(n Node) {
	if n.Closed {
		c.add("", Lookup{Field: InputInterface, Set: setOpenLinks, Negate: true}, Verdict{Jump, chainSource})
		return
	}
	c.add("", Lookup{Field: InputInterface, Set: setPodLinks}, Verdict{Jump, chainSource})
}

// knownSource drops what has a source address that does not belong to the
// interface it came from: forged ones, and those of pods that nobody has told
// us of yet.
func knownSource() *Chain {
	c := &Chain{Name: chainSource}
	c.add("", MatchNoInput{}, Verdict{Goto, chainNoInput})
	for _, f := range program.Families {
		c.add("", Lookup{Field: InputSource, Family: f, Set: perFamily("source", f)}, Verdict{Kind: Return})
	}
	c.addLinkScope(Source, InputInterface, setEgressLinks, Verdict{Kind: Return})
	c.Rules = append(c.Rules, dropped(CounterSource, "of no known pod"))
	return c
}

// noInput does the same for packets without an input interface: the node's own,
// and those that a bridge forwards by itself, whose source must be on the same
// bridge.
func noInput(n Node) *Chain {
	c := &Chain{Name: chainNoInput}
	if n.Closed {
		c.add("not where pods are", Lookup{Field: OutputInterface, Set: setOpenLinks}, Verdict{Kind: Return})
	}
	for _, f := range program.Families {
		c.add("", Lookup{Field: OutputSource, Family: f, Set: perFamily("source", f)}, Verdict{Kind: Return})
	}
	c.add("the node", MatchLocalSource{}, Verdict{Kind: Return})
	c.addLinkScope(Source, OutputInterface, setEgressLinks, Verdict{Kind: Return})
	c.Rules = append(c.Rules, dropped(CounterSource, "of no known pod"))
	return c
}

func dropped(counter, comment string) Rule {
	return Rule{Statements: []Statement{Count{counter}, Verdict{Kind: Drop}}, Comment: comment}
}

// tracking is a chain that nothing jumps to. A nat chain does not switch
// connection tracking on by itself, and without tracking it is never entered;
// any ct expression in an inet table switches it on for both families.
func tracking() *Chain {
	c := &Chain{Name: chainTracking}
	c.add("switches connection tracking on", MatchState{CtNew}, Verdict{Kind: Return})
	return c
}

// guard drops what conntrack could not place in a connection: such packets
// never enter a nat chain.
func guard(n Node) []*Chain {
	base := &Chain{Name: chainGuard, Base: &Base{"filter", "forward", priorityGuard}}
	base.add("", MatchState{CtInvalid | CtUntracked}, Verdict{Goto, chainGuarded})
	c := &Chain{Name: chainGuarded}
	c.addDiscovery(Verdict{Kind: Return})
	c.addCut(n)
	behind := Lookup{Field: OutputInterface, Set: setIngressLinks}
	if n.Closed {
		behind = Lookup{Field: OutputInterface, Set: setOpenLinks, Negate: true}
	}
	for _, f := range program.Families {
		c.add("", Lookup{Field: Source, Family: f, Set: perFamily("guard-from", f)}, Count{CounterGuard}, Verdict{Kind: Drop})
		c.add("", Lookup{Field: Destination, Family: f, Set: perFamily("guard-to", f)}, Count{CounterGuard}, Verdict{Kind: Drop})
		unlisted := Lookup{Field: Destination, Family: f, Set: perFamily("local", f), Negate: true}
		c.add("to no known pod", MatchFamily{f}, behind, unlisted, Count{CounterGuard}, Verdict{Kind: Drop})
		if n.Closed {
			from := Lookup{Field: InputInterface, Set: setOpenLinks, Negate: true}
			unlisted.Field = Source
			c.add("from no known pod", MatchFamily{f}, from, unlisted, Count{CounterGuard}, Verdict{Kind: Drop})
		}
	}
	return []*Chain{base, c}
}

// guardSets are the addresses whose stray packets the guard drops.
func guardSets(p *program.Program) []*Set {
	var sets []*Set
	for _, f := range program.Families {
		addr := either(f == program.IPv6, Addr6, Addr4)
		from := &Set{Name: perFamily("guard-from", f), Key: addr, Comment: "isolated for egress"}
		to := &Set{Name: perFamily("guard-to", f), Key: addr, Comment: "isolated for ingress"}
		for _, pod := range p.Pods {
			e := program.Element{Addr: pod.Addr}
			if program.FamilyOf(pod.Addr) != f {
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
// tracked, and invalid ones.
func untrackedInput() *Chain {
	c := &Chain{Name: chainUntracked, Base: &Base{"filter", "input", priorityGuard}}
	c.add("", MatchState{CtInvalid | CtUntracked}, Verdict{Goto, chainToNode})
	return c
}

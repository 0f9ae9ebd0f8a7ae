// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"

	"github.com/podwall/podwall/internal/filter"
)

// baseChains returns the chains that are always there, in the order in which a
// packet meets them.
func baseChains(p *filter.Program, n Node) []*Chain {
	chains := []*Chain{
		postrouting(n),
		toPod(),
		input(n),
		toNode(),
		knownSource(),
		tracking(),
		{Name: chainSelfTest, Rules: []Rule{dropped(CounterSelfTest, "must drop what the self-test sends")}},
	}
	if n.Guard && !n.FilterHook {
		chains = append(chains, guard()...)
	}
	if !n.FilterHook && isolatesEgress(p) {
		chains = append(chains, untrackedInput())
	}
	return chains
}

func isolatesEgress(p *filter.Program) bool {
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
	for _, f := range filter.Families {
		c.add("a pod reaches itself", Lookup{Field: SourceDestination, Family: f, Set: perFamily("self", f)}, Verdict{Kind: Accept})
	}
	c.add("", Lookup{Field: InputInterface, Set: setEgressLinks}, Verdict{Jump, chainSource})
	c.add("inside one bridge", Lookup{Field: OutputInterface, Set: setEgressLinks}, MatchNoInput{}, MatchLocalSource{Negate: true}, Verdict{Jump, chainSource})
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
	for _, f := range filter.Families {
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
	for _, f := range filter.Families {
		c.add("", Lookup{Field: Source, Family: f, Set: perFamily("from", f), Map: true})
	}
}

func (c *Chain) add(comment string, s ...Statement) {
	c.Rules = append(c.Rules, Rule{Statements: s, Comment: comment})
}

// toPod judges the ingress of local pods. An unlisted address behind an
// interface of an isolated pod (its link-local address, an address that it took
// by itself) is closed for everybody but the node.
func toPod() *Chain {
	c := &Chain{Name: chainToPod}
	for _, f := range filter.Families {
		c.add("", Lookup{Field: Destination, Family: f, Set: perFamily("to", f), Map: true})
	}
	behind := Lookup{Field: OutputInterface, Set: setIngressLinks}
	c.add("the node to no known pod", behind, MatchNoInput{}, MatchLocalSource{}, Verdict{Kind: Accept})
	c.add("no known pod", behind, Count{CounterUnlisted}, Verdict{Kind: Drop})
	return c
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

func toNode() *Chain {
	c := &Chain{Name: chainToNode}
	c.addDiscovery(Verdict{Kind: Return})
	c.add("", Lookup{Field: InputInterface, Set: setEgressLinks}, Verdict{Jump, chainSource})
	c.addEgress()
	return c
}

// knownSource drops what comes from the interface of an isolated pod with an
// address that no pod has.
func knownSource() *Chain {
	c := &Chain{Name: chainSource}
	for _, f := range filter.Families {
		c.add("", Lookup{Field: Source, Family: f, Set: perFamily("local", f)}, Verdict{Kind: Return})
	}
	c.Rules = append(c.Rules, dropped(CounterSource, "no known pod"))
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
func guard() []*Chain {
	base := &Chain{Name: chainGuard, Base: &Base{"filter", "forward", priorityGuard}}
	base.add("", MatchState{CtInvalid | CtUntracked}, Verdict{Goto, chainGuarded})
	c := &Chain{Name: chainGuarded}
	c.addDiscovery(Verdict{Kind: Return})
	for _, f := range filter.Families {
		c.add("", Lookup{Field: Source, Family: f, Set: perFamily("guard-from", f)}, Count{CounterGuard}, Verdict{Kind: Drop})
		c.add("", Lookup{Field: Destination, Family: f, Set: perFamily("guard-to", f)}, Count{CounterGuard}, Verdict{Kind: Drop})
		c.add("", MatchFamily{f}, Lookup{Field: OutputInterface, Set: setIngressLinks}, Lookup{Field: Destination, Family: f, Set: perFamily("local", f), Negate: true}, Count{CounterGuard}, Verdict{Kind: Drop})
	}
	return []*Chain{base, c}
}

// guardSets are the addresses whose stray packets the guard drops.
func guardSets(p *filter.Program) []*Set {
	var sets []*Set
	for _, f := range filter.Families {
		addr := either(f == filter.IPv6, Addr6, Addr4)
		from := &Set{Name: perFamily("guard-from", f), Key: addr, Comment: "isolated for egress"}
		to := &Set{Name: perFamily("guard-to", f), Key: addr, Comment: "isolated for ingress"}
		for _, pod := range p.Pods {
			e := filter.Element{Addr: pod.Addr}
			if filter.FamilyOf(pod.Addr) != f {
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

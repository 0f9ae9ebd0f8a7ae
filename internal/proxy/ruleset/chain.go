// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/program"
)

// chains returns all chains. Those of different shapes overlap: each is made once.
func (b builder) chains(n *needs) []*nft.Chain {
	c := collector{builder: b, made: map[string]bool{}}
	c.list = append(c.list, b.base()...)
	for s := range n.shapes {
		c.shape(s)
	}
	for s := range n.sticks {
		c.list = append(c.list, b.stick(s))
	}
	(&nft.Table{Chains: c.list}).Sort()
	return c.list
}

// affinity returns the maps of remembered clients.
func (b builder) affinity(n *needs) (sets []*nft.Set) {
	for f := range n.fronts {
		sets = append(sets, AffinitySet(f, b.family, b.settings))
	}
	return sets
}

func (b builder) chain(name string, rules ...nft.Rule) *nft.Chain {
	return &nft.Chain{Name: name, Rules: rules}
}

func (b builder) rule(comment string, s ...nft.Statement) nft.Rule {
	return nft.Rule{Statements: s, Comment: comment, Family: b.family}
}

func (b builder) lookup(field nft.Field, set string) nft.Lookup {
	return nft.Lookup{Field: field, Family: b.family, Set: set}
}

func (b builder) verdict(field nft.Field, set string) nft.Lookup {
	return nft.Lookup{Field: field, Family: b.family, Set: set, Map: true}
}

func drop() nft.Verdict { return nft.Verdict{Kind: nft.Drop} }

// base returns the chains that are always there. What each connection meets is in the base chains themselves:
// a jump costs it time.
func (b builder) base() []*nft.Chain {
	nat := func(hook string, priority int32) *nft.Base {
		return &nft.Base{Type: "nat", Hook: hook, Priority: priority}
	}
	front := []nft.Rule{
		b.rule("", b.verdict(nft.Front, setServices)),
		b.rule("", b.lookup(nft.Destination, setVIPs), nft.GoTo(chainUnknownPort)),
		b.rule("", b.lookup(nft.Destination, setServiceRanges), nft.Count{Counter: CounterUnallocated}, drop()),
		b.rule("", b.lookup(nft.Destination, setNodeAddresses), b.verdict(nft.ProtocolAndPort, setNodePorts)),
	}
	return []*nft.Chain{
		{Name: chainPrerouting, Base: nat("prerouting", priorityDestination), Rules: front},
		{Name: chainOutput, Base: nat("output", priorityDestination), Rules: front},
		{Name: chainPostrouting, Base: nat("postrouting", prioritySource), Rules: b.sources()},
		b.reject(chainUnknownPort, CounterUnknownPort),
		b.reject(chainNoBackend, CounterNoBackend),
		b.chain(chainSilent, b.rule("", nft.Count{Counter: CounterSilent}, drop())),
	}
}

// sources returns the rules that choose the source of a connection.
func (b builder) sources() (rules []nft.Rule) {
	if !b.settings.IPVS {
		rules = append(rules, b.rule("to no Service", nft.MatchTranslated{Negate: true},
			nft.Verdict{Kind: nft.Accept}))
	}
	return append(rules,
		b.rule("clients that would get the answer past this node", nft.MatchMark{Bits: b.settings.Mark},
			nft.ClearMark{Bits: b.settings.Mark}, nft.Masquerade{}),
		b.rule("a backend to itself", b.lookup(nft.SourceDestination, setLoops), nft.Masquerade{}))
}

// reject returns a chain that refuses connections.
func (b builder) reject(name, counter string) *nft.Chain {
	return b.chain(name,
		b.rule("", nft.MatchProtocol{Protocol: inet.TCP}, nft.Count{Counter: counter},
			nft.Reject{Family: b.family, Reset: true}),
		b.rule("", nft.Count{Counter: counter}, nft.Reject{Family: b.family}))
}

// collector makes the chains of shapes.
type collector struct {
	builder
	list []*nft.Chain
	made map[string]bool
}

// begin reports whether the chain is not yet made.
func (c *collector) begin(name string) bool {
	if c.made[name] {
		return false
	}
	c.made[name] = true
	return true
}

func (c *collector) add(name string, rules ...nft.Rule) {
	c.list = append(c.list, c.chain(name, rules...))
}

// shape makes the chain that connections enter, and those behind it.
func (c *collector) shape(s shape) {
	name := s.name()
	if s.admission != "" {
		c.shape(s.admitted())
		if c.begin(name) {
			outside := c.lookup(nft.Source, prefixAdmitted+s.admission)
			outside.Negate = true
			c.add(name,
				c.rule("", outside, nft.Count{Counter: CounterNotAdmitted}, drop()),
				c.rule("", nft.GoTo(s.admitted().name())))
		}
		return
	}
	for _, p := range []program.Pick{s.inside, s.outside} {
		switch {
		case p.Count > 0:
			c.choose(s.pick(p), choice{p.First, p.Count, s.port, s.sticky}, p.Masquerade)
		case p.Otherwise == program.Leave:
			c.leave(s.pick(p), p.Masquerade)
		}
	}
	if s.inside != s.outside && c.begin(name) {
		inside := nft.GoTo(s.pick(s.inside))
		c.add(name,
			c.rule("a pod of this node", c.lookup(nft.Source, setNodePods), inside),
			c.rule("the node itself", nft.MatchLocalSource{}, inside),
			c.rule("", nft.GoTo(s.pick(s.outside))))
	}
}

// mark returns the rules that mark the packets that are to be masqueraded.
func (b builder) mark(whom program.Masquerade) []nft.Rule {
	mark := nft.SetMark{Bits: b.settings.Mark}
	if whom == program.Always {
		return []nft.Rule{b.rule("", mark)}
	}
	if whom == program.Never {
		return nil
	}
	stranger := b.lookup(nft.Source, setClusterPods)
	stranger.Negate = true
	if !b.near.IsValid() {
		return []nft.Rule{b.rule("", stranger, mark)}
	}
	// Most clients are pods of this node: to compare one prefix costs less than a lookup among ranges.
	return []nft.Rule{b.rule("", nft.MatchPrefix{Field: nft.Source, Prefix: b.near, Negate: true}, stranger, mark)}
}

// leave makes the chain of connections that IPVS takes, after this one.
func (c *collector) leave(name string, whom program.Masquerade) {
	if c.begin(name) {
		c.add(name, append(c.mark(whom), c.rule("", nft.Verdict{Kind: nft.Accept}))...)
	}
}

// choose makes the chain that chooses a backend. If the chosen one was just taken away, the first one is
// tried: it is there as long as there is any. If it is gone, too, the client tries again.
func (c *collector) choose(name string, to choice, whom program.Masquerade) {
	if !c.begin(name) {
		return
	}
	last := c.rule("taken away just now", nft.Count{Counter: CounterMissing}, drop())
	if to.count > 1 {
		first := to
		first.count = 1
		c.choose(first.name(), first, program.Never)
		last = c.rule("taken away just now", nft.GoTo(first.name()))
	}
	c.add(name, append(c.mark(whom), c.rule("", c.choice(to)), last)...)
}

// choice returns the statement that chooses a backend.
func (b builder) choice(c choice) nft.Statement {
	among := nft.Choice{First: c.first, Count: c.count}
	field, backends, stickies := nft.Front, setBackends, setStickies
	if c.port {
		field, backends, stickies = nft.ProtocolAndPort, setPortBackends, setPortStickies
	}
	if c.sticky {
		v := b.verdict(field, stickies)
		v.Choice = among
		return v
	}
	return nft.TranslateByMap{Field: field, Family: b.family, Choice: among, Map: backends}
}

// stick returns the chain of a backend of a sticky front, which was chosen at random. A client that is
// remembered keeps its backend: to remember it again begins its time again, and changes nothing else.
func (b builder) stick(s stick) *nft.Chain {
	memory := prefixAffinity + frontName(s.front)
	to := netip.AddrPortFrom(s.to.Addr, s.to.Port)
	return b.chain(s.name(),
		b.rule("", nft.RememberSource{Map: memory, Timeout: time.Duration(s.sticky) * time.Second, To: to}),
		b.rule("", nft.TranslateByMap{Field: nft.Source, Family: b.family, Protocol: s.front.Protocol, Map: memory}),
		b.rule("too many clients to remember", nft.Translate{Protocol: s.front.Protocol, To: to}))
}

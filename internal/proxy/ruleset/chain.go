// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"slices"
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

// base returns the chains that are always there.
func (b builder) base() []*nft.Chain {
	nat := func(hook string, priority int32) *nft.Base {
		return &nft.Base{Type: "nat", Hook: hook, Priority: priority}
	}
	first := []nft.Rule{b.rule("", nft.JumpTo(chainFront))}
	translated := []nft.Statement{nft.MatchTranslated{}}
	if b.settings.IPVS {
		translated = nil
	}
	return []*nft.Chain{
		{Name: chainPrerouting, Base: nat("prerouting", priorityDestination), Rules: first},
		{Name: chainOutput, Base: nat("output", priorityDestination), Rules: first},
		{Name: chainPostrouting, Base: nat("postrouting", prioritySource), Rules: []nft.Rule{
			b.rule("clients that would get the answer past this node", slices.Concat(translated, []nft.Statement{
				nft.MatchMark{Bits: b.settings.Mark}, nft.ClearMark{Bits: b.settings.Mark}, nft.Masquerade{}})...),
			b.rule("a backend to itself", slices.Concat(translated, []nft.Statement{
				b.lookup(nft.SourceDestination, setLoops), nft.Masquerade{}})...),
		}},
		b.chain(chainFront,
			b.rule("", b.verdict(nft.Front, setServices)),
			b.rule("", b.lookup(nft.Destination, setVIPs), nft.GoTo(chainUnknownPort)),
			b.rule("", b.lookup(nft.Destination, setServiceRanges), nft.Count{Counter: CounterUnallocated}, drop()),
			b.rule("", b.lookup(nft.Destination, setNodeAddresses), b.verdict(nft.ProtocolAndPort, setNodePorts))),
		b.reject(chainUnknownPort, CounterUnknownPort),
		b.reject(chainNoBackend, CounterNoBackend),
		b.chain(chainSilent, b.rule("", nft.Count{Counter: CounterSilent}, drop())),
	}
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
			to := choice{p.First, p.Count, s.port, s.sticky}
			c.choose(to)
			c.mark(p.Masquerade, s.pick(p), to.name())
		case p.Otherwise == program.Leave:
			c.leave()
			c.mark(p.Masquerade, s.pick(p), chainLeave)
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

// mark makes the chain before another one that marks the packets that are to be masqueraded.
func (c *collector) mark(whom program.Masquerade, name, next string) {
	if whom == program.Never || !c.begin(name) {
		return
	}
	mark, on := nft.SetMark{Bits: c.settings.Mark}, nft.GoTo(next)
	if whom == program.Always {
		c.add(name, c.rule("", mark), c.rule("", on))
		return
	}
	stranger := c.lookup(nft.Source, setClusterPods)
	stranger.Negate = true
	c.add(name, c.rule("", stranger, mark), c.rule("", on))
}

// leave makes the chain of connections that IPVS takes, after this one.
func (c *collector) leave() {
	if c.begin(chainLeave) {
		c.add(chainLeave, c.rule("", nft.Verdict{Kind: nft.Accept}))
	}
}

// choose makes the chain that chooses a backend. If the chosen one was just taken away, the first one is
// tried: it is there as long as there is any. If it is gone, too, the client tries again.
func (c *collector) choose(to choice) {
	if !c.begin(to.name()) {
		return
	}
	last := c.rule("taken away just now", nft.Count{Counter: CounterMissing}, drop())
	if to.count > 1 {
		first := to
		first.count = 1
		c.choose(first)
		last = c.rule("taken away just now", nft.GoTo(first.name()))
	}
	c.add(to.name(), c.rule("", c.choice(to)), last)
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

// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A cut connection can be revived by its replying end: that end does not know about
// the cut, and its next packet opens a connection in the other direction, which may be
// allowed. So the tuples of its packets are kept in sets, and dropped before any other
// rule. The rules exist only while there are such tuples: without policy changes they
// cost nothing.
const (
	// CounterCut counts packets of the answering end of a connection that was cut.
	CounterCut = "drop-cut"
	chainCut   = "cut"
)

// How long an element stays after its last packet. After a longer silence the packet
// belongs to a new flow: conntrack has expired a UDP flow by then (120 s), and an SCTP
// end has sent a heartbeat (every 30 s). A TCP server may be silent for hours and then
// continue, so its element stays until the datapath removes it.
const (
	cutTimeoutUDP  = 5 * time.Minute
	cutTimeoutSCTP = time.Hour
)

func cutProtocols() []inet.Protocol {
	return []inet.Protocol{inet.TCP, inet.UDP, inet.SCTP}
}

// cutSet returns the set, without elements.
func cutSet(f inet.Family, p inet.Protocol) *nft.Set {
	s := &nft.Set{Name: perFamily("cut", f) + "-" + p.String(), Key: either(f == inet.IPv6, nft.Flow6, nft.Flow4),
		Kept:    true,
		Comment: "packets that would revive a cut connection"}
	switch p {
	case inet.UDP:
		s.Timeout = cutTimeoutUDP
	case inet.SCTP:
		s.Timeout = cutTimeoutSCTP
	}
	return s
}

func cutSets() (list []*nft.Set) {
	for _, f := range inet.Families {
		for _, p := range cutProtocols() {
			list = append(list, cutSet(f, p))
		}
	}
	return list
}

// cutRules returns the chain that looks the sets up. TCP and SCTP packets that open a
// connection are judged like any other.
func cutRules() *nft.Chain {
	c := &nft.Chain{Name: chainCut}
	for _, p := range cutProtocols() {
		for _, f := range inet.Families {
			s := cutSet(f, p)
			var list []nft.Statement
			if p != inet.UDP {
				list = append(list, nft.MatchUnderWay{Protocol: p})
			}
			list = append(list, nft.FlowIn{Family: f, Protocol: p, Set: s.Name})
			if s.Timeout > 0 {
				list = append(list, nft.FlowIn{Family: f, Protocol: p, Set: s.Name, Rearm: true})
			}
			c.Add("", append(list, nft.Count{Counter: CounterCut}, nft.Verdict{Kind: nft.Drop})...)
		}
	}
	return c
}

// addCut jumps to the chain that looks the sets up, if they have elements. It is for
// postrouting, which every packet to a pod and from the node traverses, and for the
// guard: replies of a masqueraded connection go to the node's own address.
func addCut(c *nft.Chain, n program.Node) {
	if n.Cut {
		c.Add("packets that would revive a cut connection", nft.JumpTo(chainCut))
	}
}

// WithCut returns a table with what n.Cut asks for, and the changes that lead there:
// the sets and the rules that refuse what would revive connections come or go, and
// nothing else is rendered or compared. The table must be that of n but for n.Cut.
func WithCut(t *nft.Table, n program.Node) (with *nft.Table, ops []nft.Op) {
	if n.Cut == (t.Chain(chainCut) != nil) {
		return t, nil
	}
	asked := map[string]*nft.Chain{} // the chains that ask the sets
	for _, c := range append(guard(n), postrouting(n)) {
		if t.Chain(c.Name) != nil {
			asked[c.Name] = c
		}
	}
	copied := *t
	with = &copied
	isCut := func(name string) bool {
		return slices.ContainsFunc(cutSets(), func(s *nft.Set) bool { return s.Name == name })
	}
	with.Sets = slices.DeleteFunc(slices.Clone(t.Sets), func(s *nft.Set) bool { return isCut(s.Name) })
	with.Chains = slices.DeleteFunc(slices.Clone(t.Chains), func(c *nft.Chain) bool { return c.Name == chainCut })
	with.Counters = slices.DeleteFunc(slices.Clone(t.Counters), func(name string) bool { return name == CounterCut })
	for i, c := range with.Chains {
		if other := asked[c.Name]; other != nil {
			with.Chains[i] = other
		}
	}
	if n.Cut {
		with.Sets, with.Chains = append(with.Sets, cutSets()...), append(with.Chains, cutRules())
		with.Counters = slices.Sorted(slices.Values(append(with.Counters, CounterCut)))
	}
	with.Sort()
	part := func(t *nft.Table) *nft.Table {
		p := &nft.Table{TableID: t.TableID, Counters: t.Counters}
		for _, s := range t.Sets {
			if isCut(s.Name) {
				p.Sets = append(p.Sets, s)
			}
		}
		for _, c := range t.Chains {
			if c.Name == chainCut || asked[c.Name] != nil {
				p.Chains = append(p.Chains, c)
			}
		}
		return p
	}
	return with, nft.Diff(part(t), part(with))
}

// CutOps returns the changes that add packets to the sets and take others out.
// To take out what is not there is no error: the kernel may have forgotten it.
func CutOps(add, remove []program.Refused) []nft.Op {
	ops := map[string]*nft.Op{}
	op := func(r program.Refused) *nft.Op {
		s := cutSet(inet.FamilyOf(r.Src), r.Protocol)
		if ops[s.Name] == nil {
			ops[s.Name] = &nft.Op{Kind: nft.ChangeElements, Set: s}
		}
		return ops[s.Name]
	}
	for _, r := range add {
		o := op(r)
		o.Entries = append(o.Entries, entryOf(r))
	}
	for _, r := range remove {
		o := op(r)
		o.Removed = append(o.Removed, entryOf(r))
	}
	var list []nft.Op
	for _, name := range slices.Sorted(maps.Keys(ops)) {
		list = append(list, *ops[name])
	}
	return list
}

// JoinOps returns two lists of changes as one, in the order for Commit.
func JoinOps(a, b []nft.Op) []nft.Op {
	all := slices.Concat(a, b)
	slices.SortStableFunc(all, func(x, y nft.Op) int { return int(x.Kind) - int(y.Kind) })
	return all
}

func entryOf(r program.Refused) nft.Entry {
	return nft.Entry{Key: nft.Key{Element: inet.Element{Addr: r.Src, Port: r.SrcPort}, Dst: netip.AddrPortFrom(r.Dst,
		r.DstPort)}}
}

// Refusals returns what the sets of a table hold.
func Refusals(t *nft.Table) (list []program.Refused) {
	for _, f := range inet.Families {
		for _, p := range cutProtocols() {
			want := cutSet(f, p)
			s := t.Set(want.Name)
			if s == nil || s.Key != want.Key {
				continue
			}
			for _, e := range s.Entries {
				list = append(list, program.Refused{Protocol: p, Src: e.Key.Addr, Dst: e.Key.Dst.Addr(),
					SrcPort: e.Key.Port,
					DstPort: e.Key.Dst.Port()})
			}
		}
	}
	return list
}

// ReadRefusals returns what the sets hold in the kernel. A set that is not there
// holds nothing.
func ReadRefusals(c *nft.Conn) ([]program.Refused, error) {
	t := &nft.Table{}
	for _, s := range cutSets() {
		found, err := c.Fill(s)
		if err != nil {
			return nil, err
		}
		if found {
			t.Sets = append(t.Sets, s)
		}
	}
	return Refusals(t), nil
}

// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// walker takes one packet through a table as the kernel does.
type walker struct {
	table *nft.Table
	flow  program.Flow
	state nft.CtState
	// in and out are the packet's interfaces; in is empty for what the node makes
	// and for what a bridge forwards by itself.
	in, out string
	// broadcast is true if the packet's frame is for everybody or for a group.
	broadcast bool
	// reset is true for a TCP packet that refuses a connection.
	reset bool
	// began and answers are the ends of the connection that an error is about.
	began, answers netip.Addr
	// counted has the counters that the packet moved; may be nil.
	counted map[string]bool
}

// hook returns what becomes of the packet at a base chain, whose own end lets
// it pass.
func (w walker) hook(base *nft.Chain) nft.VerdictKind {
	if kind := w.chain(base, 0); kind == nft.Drop {
		return nft.Drop
	}
	return nft.Accept
}

// chain returns the end of the walk, or Return when it goes back to the caller.
func (w walker) chain(c *nft.Chain, depth int) nft.VerdictKind {
	if c == nil || depth > 10 {
		panic("a verdict leads to no chain, or in a circle")
	}
	for _, r := range c.Rules {
		v := w.rule(r)
		switch v.Kind {
		case nft.Accept, nft.Drop, nft.Return:
			return v.Kind
		case nft.Goto:
			return w.chain(w.table.Chain(v.Chain), depth+1)
		case nft.Jump:
			if kind := w.chain(w.table.Chain(v.Chain), depth+1); kind != nft.Return {
				return kind
			}
		}
	}
	return nft.Return
}

// rule returns the verdict of a rule, the zero one if the walk goes on.
func (w walker) rule(r nft.Rule) nft.Verdict {
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nft.Verdict:
			return s
		case nft.Lookup:
			entry, found := w.lookup(s)
			if found == s.Negate {
				return nft.Verdict{}
			}
			if s.Map {
				return entry.Verdict
			}
		default:
			if !w.matches(s) {
				return nft.Verdict{}
			}
		}
	}
	return nft.Verdict{}
}

func (w walker) matches(s nft.Statement) bool {
	f := w.flow
	switch s := s.(type) {
	case nft.MatchProtocol:
		return f.Protocol == s.Protocol
	case nft.MatchPort:
		return f.Protocol == s.Protocol && s.Ports.First <= f.DstPort && f.DstPort <= s.Ports.Last
	case nft.MatchPrefix:
		a := map[nft.Field]netip.Addr{nft.Source: f.Src, nft.Destination: f.Dst}[s.Field]
		return a.Is4() == s.Prefix.Addr().Is4() && s.Prefix.Contains(a) != s.Negate
	case nft.MatchCtReplySource:
		return s.Prefix.Contains(w.answers)
	case nft.MatchFamily:
		return inet.FamilyOf(f.Src) == s.Family
	case nft.MatchLocalSource:
		return f.FromNode != s.Negate
	case nft.MatchNoInput:
		return (w.in == "") != s.Negate
	case nft.MatchNoOutput:
		return (w.out == "") != s.Negate
	case nft.MatchLocalDestination:
		return f.ToNode
	case nft.MatchToHost:
		return !w.broadcast
	case nft.MatchState:
		return w.state&s.States != 0
	case nft.MatchICMPAny:
		return f.Protocol == map[inet.Family]inet.Protocol{inet.IPv4: 1, inet.IPv6: 58}[s.Family]
	case nft.Count:
		if w.counted != nil {
			w.counted[s.Counter] = true
		}
		return true
	case nft.Log:
		return true
	case nft.LimitPerAddress:
		return false // above the rate; below it the packet is recorded, and goes on to the next rule
	case nft.MatchReset:
		return w.reset
	case nft.MatchUnderWay, nft.FlowIn:
		return false // first packets, and no flow is cut
	case nft.MatchLooped:
		return false
	case nft.MatchICMP, nft.MatchHopLimit, nft.MatchBroadcast:
		return false // the walks here have no neighbour discovery, and no broadcast
	}
	panic(fmt.Sprintf("the walk does not know %T", s))
}

// lookup finds what a set has for the packet.
func (w walker) lookup(l nft.Lookup) (nft.Entry, bool) {
	f, s := w.flow, w.table.Set(l.Set)
	if s == nil {
		panic("there is no set " + l.Set)
	}
	family, key, link := inet.FamilyOf(f.Src), inet.Element{}, ""
	switch l.Field {
	case nft.InputInterface:
		link, family = w.in, l.Family
	case nft.OutputInterface:
		link, family = w.out, l.Family
	case nft.InputSource:
		link, key.Addr = w.in, f.Src
	case nft.OutputSource:
		link, key.Addr = w.out, f.Src
	case nft.Source:
		key.Addr = f.Src
	case nft.Destination:
		key.Addr = f.Dst
	case nft.CtOriginalSource, nft.CtReplySource:
		if f.Src != map[nft.Field]netip.Addr{nft.CtOriginalSource: w.began, nft.CtReplySource: w.answers}[l.Field] {
			return nft.Entry{}, false
		}
		key.Addr = f.Src
	case nft.SourceDestination:
		if f.Src != f.Dst {
			return nft.Entry{}, false
		}
		key.Addr = f.Src
	case nft.DestinationPort:
		key.Addr, key.Port = f.Dst, f.DstPort
		if f.Protocol != l.Protocol {
			return nft.Entry{}, false
		}
	case nft.TransportPort:
		key.Port, family = f.DstPort, l.Family
		if f.Protocol != l.Protocol {
			return nft.Entry{}, false
		}
	case nft.ProtocolAndPort:
		key.Protocol, key.Port, family = f.Protocol, f.DstPort, l.Family
	}
	if family != l.Family {
		return nft.Entry{}, false
	}
	if i := slices.IndexFunc(s.Entries, func(e nft.Entry) bool { return e.Key == nft.Key{Element: key, Iface: link} }); i >= 0 {
		return s.Entries[i], true
	}
	return nft.Entry{}, link == "" && has(s, key)
}

func has(s *nft.Set, key inet.Element) bool {
	if !s.Interval {
		return s.Elements.Has(key)
	}
	return slices.ContainsFunc(s.Ranges, func(r inet.Range) bool { return r.Contains(key) })
}

// verdict walks the base chain that judges the flow's first packet.
func verdict(table *nft.Table, n program.Node, f program.Flow, counted map[string]bool) program.Verdict {
	in, out := link(n, f.Src), link(n, f.Dst)
	if f.FromNode || in == out && in == bridge {
		in = ""
	}
	hook := "postrouting"
	if f.ToNode {
		hook, out = "input", ""
	}
	for _, c := range table.Chains {
		// The chain for untracked packets is at input too, and sees none here.
		w := walker{table: table, flow: f, state: nft.CtNew, in: in, out: out, counted: counted}
		if c.Base != nil && c.Base.Hook == hook && w.hook(c) == nft.Drop {
			return program.Drop
		}
		w.in, w.out = link(n, f.Src), ""
		if c.Base != nil && c.Base.Hook == "prerouting" && !f.FromNode && w.hook(c) == nft.Drop {
			return program.Drop
		}
	}
	return program.Accept
}

// The interfaces of the walks, beside those of routed pods.
const (
	uplink = "eth0"
	bridge = "br0"
)

// metadata is a link-local address behind the uplink.
var metadata = netip.MustParseAddr("169.254.169.254")

// link returns the interface that leads to an address.
func link(n program.Node, a netip.Addr) string {
	for _, at := range n.Attached {
		if at.Addr == a {
			return at.Link
		}
	}
	return uplink
}

// attached wires the pods: some on a bridge, some with an interface of their own.
func attached(p *program.Program) (list []program.Attachment) {
	for i, pod := range p.Pods {
		at := program.Attachment{Link: bridge, Addr: pod.Addr}
		if i%3 == 0 {
			at.Link = fmt.Sprintf("veth%d", i)
		}
		list = append(list, at)
	}
	return list
}

// flows are questions to a program: between all addresses that it and the test
// know, with the ports that rules of this package's tests name.
func flows(p *program.Program, more ...string) (list []program.Flow) {
	var addrs []netip.Addr
	for _, pod := range p.Pods {
		addrs = append(addrs, pod.Addr)
	}
	addrs = append(addrs, metadata)
	for _, text := range append(more, "10.0.0.3", "fd10::3", "198.51.100.7", "2001:db8::7") {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	for _, v4 := range []bool{true, false} {
		addrs = append(addrs, gen.NodeAddr("one", v4))
	}
	for _, src := range addrs {
		for _, dst := range addrs {
			f := program.Flow{Src: src, Dst: dst, FromNode: src == gen.NodeAddr("one", src.Is4()), ToNode: dst == gen.NodeAddr("one", dst.Is4()),
				SrcElsewhere: src == metadata, DstElsewhere: dst == metadata}
			if src.Is4() != dst.Is4() || f.FromNode && f.ToNode {
				continue
			}
			for _, f.Protocol = range []inet.Protocol{inet.TCP, inet.UDP, inet.SCTP} {
				for _, f.DstPort = range []uint16{53, 79, 80, 81, 85, 443, 8080, 8001, 8002, 8100, 8200} {
					list = append(list, f)
				}
			}
			f.Protocol, f.DstPort = 47, 0
			list = append(list, f)
		}
	}
	return list
}

// agree walks every flow and compares with the interpreter of programs.
func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, p *program.Program, n program.Node, list []program.Flow) {
	t.Helper()
	table := ruleset.Render(p, n)
	for _, f := range list {
		counted := map[string]bool{}
		if got, want := verdict(table, n, f, counted), program.Eval(p, f); got != want {
			t.Fatalf("%+v: the table says %s, the program %s\n%s\n%s", f, got, want, p, table)
		}
		ingress := program.WouldDrop(p, program.Ingress, f) && !program.Explain(p, f).Egress.Drops()
		if counted[ruleset.CounterAuditIngress] != ingress ||
			counted[ruleset.CounterAuditEgress] != program.WouldDrop(p, program.Egress, f) {
			t.Fatalf("%+v: the table counts %v, the audit says ingress %t, egress %t\n%s\n%s", f, counted, ingress,
				program.WouldDrop(p, program.Egress, f), p, table)
		}
	}
}

// What is rendered means what the program means, in every variant.
func TestTablesMeanWhatTheProgramMeans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := programOf(gen.Snapshot(t))
		n := program.Node{FilterHook: rapid.Bool().Draw(t, "filter hook"), NoGuard: rapid.Bool().Draw(t, "no guard"),
			OpenUnknown: rapid.Bool().Draw(t, "open"), Cut: rapid.Bool().Draw(t, "cut"),
			DeniedGroup: uint16(rapid.IntRange(0, 1).Draw(t, "denied")),
			Open:        []string{uplink}, Attached: attached(p), Bridges: rapid.Bool().Draw(t, "bridges")}
		if n.Bridges {
			n.ClosedBridges = []string{bridge}
		}
		agree(t, p, n, flows(p))
	})
}

// Many ports: the dispatch finds the rules of the protocol and the port, and
// leaves ranges, sets and rules without port to be walked.
func TestALongChainMeansTheSame(t *testing.T) {
	port := func(first, last uint16) inet.PortRange { return inet.PortRange{First: first, Last: last} }
	block := func(text string) program.Block { return program.Block{CIDR: netip.MustParsePrefix(text)} }
	var rules []program.Rule
	for i := range uint16(20) {
		rules = append(rules,
			program.Rule{Protocol: inet.TCP, Ports: port(8000+i, 8000+i), Block: block("10.0.0.2/32")},
			program.Rule{Protocol: inet.UDP, Ports: port(8000+i, 8000+i), Block: block("10.0.0.3/32")})
	}
	rules = append(rules,
		program.Rule{Protocol: inet.TCP, Ports: port(8100, 8200), Block: block("10.0.0.4/32")},
		program.Rule{Protocol: inet.SCTP, Block: block("10.0.0.5/32")},
		program.Rule{Protocol: inet.UDP, DestSet: "ports4-a", PeerSet: "pods4-a"},
		program.Rule{Protocol: 47})
	for _, d := range []program.Direction{program.Ingress, program.Egress} {
		t.Run(d.String(), func(t *testing.T) {
			p := &program.Program{
				Pods:   []program.Pod{{Addr: netip.MustParseAddr("10.0.0.1"), Name: "a/p"}},
				Chains: []*program.Chain{{Name: "long", Direction: d, Family: inet.IPv4, Rules: rules}},
				Sets: []*program.Set{
					{Name: "pods4-a", Kind: inet.Addrs, Family: inet.IPv4},
					{Name: "ports4-a", Kind: inet.AddrPorts, Family: inet.IPv4},
				},
			}
			for _, text := range []string{"10.0.0.1", "10.0.0.6"} {
				a := netip.MustParseAddr(text)
				p.Sets[0].Elements = p.Sets[0].Elements.With(inet.Element{Addr: a})
				p.Sets[1].Elements = p.Sets[1].Elements.With(inet.Element{Addr: a, Port: 53})
			}
			if p.Pods[0].Ingress = "long"; d == program.Egress {
				p.Pods[0].Ingress, p.Pods[0].Egress = "", "long"
			}
			agree(t, p, program.Node{Open: []string{uplink}, Attached: attached(p)}, flows(p, "10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"))
		})
	}
}

// The guard drops stray packets of isolated pods, in the isolated direction.
func TestTheGuardKnowsTheDirection(t *testing.T) {
	in, out, outside := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("198.51.100.7")
	p := &program.Program{
		Pods: []program.Pod{{Addr: in, Ingress: "in"}, {Addr: out, Egress: "out"}},
		Chains: []*program.Chain{{Name: "in", Direction: program.Ingress, Family: inet.IPv4},
			{Name: "out", Direction: program.Egress, Family: inet.IPv4}},
	}
	table := ruleset.Render(p, program.Node{Open: []string{uplink}})
	tests := []struct {
		name     string
		src, dst netip.Addr
		want     nft.VerdictKind
	}{
		{"to a pod isolated for ingress", outside, in, nft.Drop},
		{"from it", in, outside, nft.Accept},
		{"from a pod isolated for egress", out, outside, nft.Drop},
		{"to it", outside, out, nft.Accept},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := program.Flow{Protocol: inet.TCP, Src: tt.src, Dst: tt.dst, DstPort: 80}
			for _, state := range []nft.CtState{nft.CtInvalid, nft.CtUntracked} {
				if got := (walker{table: table, flow: f, state: state, in: uplink, out: uplink}).hook(table.Chain("guard")); got != tt.want {
					t.Errorf("state %d: verdict %d, want %d", state, got, tt.want)
				}
			}
			if got := (walker{table: table, flow: f, state: nft.CtEstablished}).hook(table.Chain("guard")); got != nft.Accept {
				t.Errorf("an established packet: verdict %d", got)
			}
		})
	}
}

// A rule that changes is replaced, even when only its statements differ.
func TestDiffSeesAChangedRule(t *testing.T) {
	chain := func(kind nft.VerdictKind) *nft.Table {
		return &nft.Table{Chains: []*nft.Chain{{Name: "c", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Verdict{Kind: kind}}, Comment: "as before"}}}}}
	}
	ops := nft.Diff(chain(nft.Accept), chain(nft.Drop))
	if len(ops) != 2 || ops[0].Kind != nft.FlushChain || ops[1].Kind != nft.AddRules {
		t.Errorf("changes = %v, want the chain flushed and filled", ops)
	}
	if ops := nft.Diff(chain(nft.Drop), chain(nft.Drop)); len(ops) > 0 {
		t.Errorf("changes of an equal rule = %v", ops)
	}
}

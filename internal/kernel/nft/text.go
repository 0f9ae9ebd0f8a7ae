// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
)

// String returns the table in nft syntax, in canonical order. `nft -f` loads the text, and two equal tables
// have equal text.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", t.TableID)
	for _, c := range t.Counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n", c)
	}
	for _, s := range t.Sets {
		b.WriteString("\n")
		s.write(&b)
	}
	for _, c := range t.Chains {
		b.WriteString("\n")
		c.write(&b)
	}
	b.WriteString("}\n")
	return b.String()
}

func (s *Set) write(b *strings.Builder) {
	kind, typ := "set", "type "+s.Key.String()
	switch {
	case s.Map:
		kind, typ = "map", typ+" : verdict"
	case s.Data != 0:
		kind, typ = "map", typ+" : "+s.Data.String()
	}
	if t := s.typeof(); t != "" {
		typ = t
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\t%s\n", kind, s.Name, typ)
	if s.Size > 0 {
		fmt.Fprintf(b, "\t\tsize %d\n", s.Size)
	}
	if s.Dynamic {
		b.WriteString("\t\tflags dynamic,timeout\n")
	}
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if s.Timeout > 0 {
		fmt.Fprintf(b, "\t\tflags dynamic,timeout\n\t\ttimeout %ds\n", int(s.Timeout.Seconds()))
	}
	if s.Comment != "" {
		fmt.Fprintf(b, "\t\tcomment %q\n", Clip(s.Comment))
	}
	if list := s.elementTexts(); len(list) > 0 {
		fmt.Fprintf(b, "\t\telements = { %s }\n", strings.Join(list, ",\n\t\t\t     "))
	}
	b.WriteString("\t}\n")
}

func (s *Set) elementTexts() []string {
	var list []string
	for _, e := range inet.Sorted(s.Elements) {
		list = append(list, s.format(Key{Element: e}))
	}
	for _, r := range s.Ranges {
		list = append(list, s.ranges().FormatRange(r))
	}
	for _, e := range slices.SortedFunc(slices.Values(s.members()), Entry.Compare) {
		text := s.format(e.Key)
		if e.Comment != "" {
			text += fmt.Sprintf(" comment %q", Clip(e.Comment))
		}
		switch {
		case s.Map:
			text += " : " + e.Verdict.text()
		case s.Data != 0:
			text += fmt.Sprintf(" : %s . %d", e.To.Addr(), e.To.Port())
		}
		list = append(list, text)
	}
	return list
}

func (s *Set) format(k Key) string {
	if s.Interval {
		return s.ranges().FormatRange(k.Range())
	}
	switch s.Key {
	case Interface:
		return fmt.Sprintf("%q", k.Iface)
	case InterfaceAddr4, InterfaceAddr6:
		return fmt.Sprintf("%q . %s", k.Iface, k.Addr)
	case Hardware:
		return k.Hardware.String()
	case InterfaceHardware:
		return fmt.Sprintf("%q . %s", k.Iface, k.Hardware)
	case InterfaceHardwareAddr4, InterfaceHardwareAddr6:
		return fmt.Sprintf("%q . %s . %s", k.Iface, k.Hardware, k.Addr)
	case Flow4, Flow6:
		return fmt.Sprintf("%s . %d . %s . %d", k.Addr, k.Port, k.Dst.Addr(), k.Dst.Port())
	case Pair4, Pair6:
		return fmt.Sprintf("%s . %s", k.Addr, k.Addr)
	case Addr4Port, Addr6Port:
		return inet.AddrPorts.Format(k.Element)
	case ProtocolPort:
		return fmt.Sprintf("%s . %d", k.Protocol, k.Element.Port)
	case Front4, Front6:
		return fmt.Sprintf("%s . %s . %d", k.Addr, k.Protocol, k.Element.Port)
	case Slot4, Slot6:
		return fmt.Sprintf("%s . %s . %d . %d", k.Addr, k.Protocol, k.Element.Port, k.Slot)
	case PortSlot:
		return fmt.Sprintf("%s . %d . %d", k.Protocol, k.Element.Port, k.Slot)
	}
	return k.Addr.String()
}

// ranges returns the kind of an interval set.
func (s *Set) ranges() inet.SetKind {
	if s.Key == Port {
		return inet.PortRanges
	}
	return inet.AddrRanges
}

// String returns the type's name in nft syntax.
func (k KeyType) String() string {
	return [...]string{
		Addr4: "ipv4_addr", Addr6: "ipv6_addr",
		Pair4: "ipv4_addr . ipv4_addr", Pair6: "ipv6_addr . ipv6_addr",
		Addr4Port: "ipv4_addr . inet_service", Addr6Port: "ipv6_addr . inet_service",
		ProtocolPort: "inet_proto . inet_service", Port: "inet_service", Interface: "ifname",
		InterfaceAddr4: "ifname . ipv4_addr", InterfaceAddr6: "ifname . ipv6_addr",
		Flow4:    "ipv4_addr . inet_service . ipv4_addr . inet_service",
		Flow6:    "ipv6_addr . inet_service . ipv6_addr . inet_service",
		Hardware: "ether_addr", InterfaceHardware: "ifname . ether_addr",
		InterfaceHardwareAddr4: "ifname . ether_addr . ipv4_addr",
		InterfaceHardwareAddr6: "ifname . ether_addr . ipv6_addr",
		Front4:                 "ipv4_addr . inet_proto . inet_service",
		Front6:                 "ipv6_addr . inet_proto . inet_service",
		Slot4:                  "ipv4_addr . inet_proto . inet_service . integer",
		Slot6:                  "ipv6_addr . inet_proto . inet_service . integer",
		PortSlot:               "inet_proto . inet_service . integer",
	}[k]
}

func (c *Chain) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Base != nil {
		fmt.Fprintf(b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.Base.Type, c.Base.Hook, c.Base.Priority)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", r)
	}
	b.WriteString("\t}\n")
}

// String returns the rule in nft syntax.
func (r Rule) String() string {
	if r.raw != "" {
		return "# read from the kernel: " + r.raw
	}
	var parts []string
	for _, s := range r.Statements {
		parts = append(parts, s.text())
	}
	if r.Comment != "" {
		parts = append(parts, fmt.Sprintf("comment %q", Clip(r.Comment)))
	}
	return strings.Join(parts, " ")
}

// maxComment is the maximum length of a comment for nft, in bytes.
const maxComment = 128

// Clip shortens a comment to the maximum that nft accepts. It replaces characters that nft cannot parse
// inside a quoted string, which has no escapes.
func Clip(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r == '\n':
			return ' '
		case r < ' ' || r > '~' || r == '\\':
			return '?'
		}
		return r
	}, s)
	if len(s) > maxComment {
		s = s[:maxComment-3] + "..."
	}
	return s
}

func (v Verdict) text() string {
	switch v.Kind {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Return:
		return "return"
	case Jump:
		return "jump " + v.Chain
	case Goto:
		return "goto " + v.Chain
	}
	return "continue"
}

func (s Lookup) text() string {
	what := s.Field.text(s.Family, s.Protocol) + s.Choice.text()
	switch {
	case s.Map:
		return fmt.Sprintf("%s vmap @%s", what, s.Set)
	case s.Negate:
		return fmt.Sprintf("%s != @%s", what, s.Set)
	}
	return fmt.Sprintf("%s @%s", what, s.Set)
}

func (f Field) text(family inet.Family, p inet.Protocol) string {
	ip := FamilyFor(family).String()
	switch f {
	case Source:
		return ip + " saddr"
	case Destination:
		return ip + " daddr"
	case SourceDestination:
		return ip + " saddr . " + ip + " daddr"
	case DestinationPort:
		return ip + " daddr . " + p.String() + " dport"
	case TransportPort:
		return p.String() + " dport"
	case ProtocolAndPort:
		return "meta l4proto . th dport"
	case Front:
		return ip + " daddr . meta l4proto . th dport"
	case InputInterface:
		return "iifname"
	case InputSource:
		return "iifname . " + ip + " saddr"
	case OutputSource:
		return "oifname . " + ip + " saddr"
	case CtOriginalSource:
		return "ct original " + ip + " saddr . " + ip + " saddr"
	case CtReplySource:
		return "ct reply " + ip + " saddr . " + ip + " saddr"
	case HardwareSource, InputHardware, InputHardwareSource, InputHardwareARP, InputHardwareARPTarget,
		InputHardwareNeighbour, ARPSource, ARPTarget, Neighbour:
		return f.frameText(ip)
	}
	return "oifname"
}

func (s MatchProtocol) text() string {
	if s.Negate {
		return "meta l4proto != " + s.Protocol.String()
	}
	return "meta l4proto " + s.Protocol.String()
}

func (s MatchPort) text() string { return s.Protocol.String() + " dport " + s.Ports.String() }

func (s MatchPrefix) text() string {
	if s.Prefix.Bits() == 0 && !s.Negate {
		return MatchFamily{inet.FamilyOf(s.Prefix.Addr())}.text()
	}
	what := s.Field.text(inet.FamilyOf(s.Prefix.Addr()), inet.AnyProtocol)
	value := s.Prefix.String()
	if s.Prefix.IsSingleIP() {
		value = s.Prefix.Addr().String()
	}
	if s.Negate {
		return what + " != " + value
	}
	return what + " " + value
}

func (s MatchCtReplySource) text() string {
	return fmt.Sprintf("ct reply %s saddr %s", FamilyFor(inet.FamilyOf(s.Prefix.Addr())), s.Prefix)
}

func (s MatchFamily) text() string { return fmt.Sprintf("meta nfproto ipv%d", s.Family) }

func (s MatchLocalSource) text() string {
	if s.Negate {
		return "fib saddr type != local"
	}
	return "fib saddr type local"
}

func (MatchLocalDestination) text() string { return "fib daddr type local" }

func (MatchBroadcast) text() string { return "fib daddr type broadcast" }

func (s MatchState) text() string {
	var names []string
	for _, n := range []struct {
		bit  CtState
		name string
	}{{CtInvalid, "invalid"}, {CtEstablished, "established"}, {CtRelated, "related"},
		{CtNew, "new"}, {CtUntracked, "untracked"}} {
		if s.States&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return "ct state " + strings.Join(names, ",")
}

func (s MatchNoInput) text() string { return "meta iif " + zero(s.Negate) }

func (s MatchNoOutput) text() string { return "meta oif " + zero(s.Negate) }

func zero(negate bool) string {
	if negate {
		return "!= 0"
	}
	return "0"
}

func (MatchToHost) text() string { return "meta pkttype host" }

func (MatchLooped) text() string { return "meta pkttype 5" }

func (s MatchICMP) text() string {
	if s.First == s.Last {
		return fmt.Sprintf("icmpv6 type %d", s.First)
	}
	return fmt.Sprintf("icmpv6 type %d-%d", s.First, s.Last)
}

func (s MatchHopLimit) text() string { return fmt.Sprintf("ip6 hoplimit %d", s.Hops) }

func (s MatchICMPAny) text() string {
	if s.Family == inet.IPv6 {
		return "meta l4proto ipv6-icmp"
	}
	return "meta l4proto icmp"
}

func (s Count) text() string { return "counter name " + s.Counter }

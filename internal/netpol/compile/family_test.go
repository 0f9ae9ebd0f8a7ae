// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// six maps an IPv4 address into a /96 of its own.
func six(a netip.Addr) netip.Addr {
	b := [16]byte{0: 0xfd, 1: 0x46}
	four := a.As4()
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}

// four is the reverse of six; IPv4 addresses stay.
func four(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

func sixPrefix(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(six(p.Addr()), p.Bits()+96) }

func fourPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4() {
		return p
	}
	return netip.PrefixFrom(four(p.Addr()), p.Bits()-96)
}

// mapped returns the pods with their IPv4 addresses only, and with the same in
// IPv6.
func mapped(pods []*cluster.Pod) (v4, v6 []*cluster.Pod) {
	for _, p := range pods {
		a, b := *p, *p
		a.IPs, b.IPs = nil, nil
		for _, ip := range p.IPs {
			if ip.Is4() {
				a.IPs, b.IPs = append(a.IPs, ip), append(b.IPs, six(ip))
			}
		}
		v4, v6 = append(v4, &a), append(v6, &b)
	}
	return v4, v6
}

// inFour replaces IPv6 blocks, which match nothing among IPv4 pods but might
// after the mapping. Blocks that are wider than link-local have rules of their own
// in each family: without those addresses they have not.
func inFour(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	return eachBlock(p, func(cidr netip.Prefix, except []netip.Prefix) []networkingv1.IPBlock {
		if cidr.Addr().Is4() && cidr.Bits() == 0 {
			return []networkingv1.IPBlock{blockOf(netip.MustParsePrefix("0.0.0.0/1"), except),
				blockOf(netip.MustParsePrefix("192.0.0.0/2"), except)}
		}
		if cidr.Addr().Is4() {
			return nil
		}
		return []networkingv1.IPBlock{blockOf(netip.MustParsePrefix("203.0.113.0/24"), nil)}
	})
}

func inSix(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	return eachBlock(p, func(cidr netip.Prefix, except []netip.Prefix) []networkingv1.IPBlock {
		var holes []netip.Prefix
		for _, e := range except {
			holes = append(holes, sixPrefix(e))
		}
		return []networkingv1.IPBlock{blockOf(sixPrefix(cidr), holes)}
	})
}

// Every rule exists for both families: a cluster of IPv4 addresses, written in
// IPv6, has the same program but for the family, and a table of the same form.
func TestInvariant10IPv4MappedToIPv6IsTheSame(t *testing.T) {
	rules, sets := 0, 0
	ok := checkUntil(t, func() bool { return rules >= 100 && sets >= 30 }, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		v4, v6 := mapped(snap.Pods)
		var in4, in6 []*networkingv1.NetworkPolicy
		for _, p := range written(t) {
			in4 = append(in4, inFour(p))
			in6 = append(in6, inSix(in4[len(in4)-1]))
		}
		a, b := withPolicies(snap, in4), withPolicies(snap, in6)
		a.Pods, b.Pods = v4, v6
		for _, node := range gen.Nodes() {
			p, q := compile.Program(policy.Resolve(a, node), compile.Options{}),
				compile.Program(policy.Resolve(b, node), compile.Options{})
			if diff := cmp.Diff(inlined(p), inlined(q)); diff != "" {
				t.Fatalf("node %s: program in IPv4 (-) and IPv6 (+):\n%s%s", node, diff, gen.Describe(a))
			}
			if diff := cmp.Diff(form(ruleset.Render(p, program.Node{})),
				form(ruleset.Render(q, program.Node{}))); diff != "" {
				t.Fatalf("node %s: form of the table in IPv4 (-) and IPv6 (+):\n%s%s", node, diff, gen.Describe(a))
			}
			sameMatrix(t, p, q, v4)
			for _, c := range p.Chains {
				rules += len(c.Rules)
			}
			sets += len(p.Sets)
		}
	})
	if !ok {
		t.Errorf("%d rules and %d sets compared: too dull to show anything", rules, sets)
	}
}

// sameMatrix asks both programs about every pair of pods, and outside.
func sameMatrix(t *rapid.T, p, q *program.Program, pods []*cluster.Pod) {
	t.Helper()
	points := []netip.Addr{netip.MustParseAddr("198.51.100.7"), gen.NodeAddr("two", true)}
	for _, pod := range pods {
		points = append(points, pod.IPs...)
	}
	for _, src := range points {
		for _, dst := range points {
			for _, f := range probes() {
				f.Src, f.Dst = src, dst
				g := f
				g.Src, g.Dst = six(src), six(dst)
				if want, got := program.Eval(p, f), program.Eval(q, g); got != want {
					t.Fatalf("%s %d from %s to %s: %s in IPv4, %s in IPv6\n%s", f.Protocol, f.DstPort, src, dst, want,
						got, q)
				}
			}
		}
	}
}

// inlined is the program without names and families: what each pod address is
// allowed, with the elements of sets in place of their names.
func inlined(p *program.Program) string {
	var b strings.Builder
	for _, pod := range p.Pods {
		fmt.Fprintf(&b, "pod %s %s\n", four(pod.Addr), pod.Name)
		for _, name := range []string{pod.Ingress, pod.Egress} {
			if name == "" {
				b.WriteString("  open\n")
				continue
			}
			var rules []string
			for _, r := range p.Chain(name).Rules {
				rules = append(rules, inlinedRule(p, r))
			}
			slices.Sort(rules)
			fmt.Fprintf(&b, "  isolated %s\n    %s\n", p.Chain(name).Direction, strings.Join(rules, "\n    "))
		}
	}
	return b.String()
}

func inlinedRule(p *program.Program, r program.Rule) string {
	text := fmt.Sprintf("%s ports %s", r.Protocol, r.Ports)
	if !r.Block.Any() {
		text += " block " + fourPrefix(r.Block.CIDR).String()
		for _, e := range r.Block.Except {
			text += " except " + fourPrefix(e).String()
		}
	}
	for _, name := range []string{r.PortSet, r.PeerSet, r.DestSet} {
		if name == "" {
			continue
		}
		s := p.Set(name)
		var elements []string
		for _, e := range inet.Sorted(s.Elements) {
			e.Addr = four(e.Addr)
			elements = append(elements, s.Kind.Format(e))
		}
		for _, r := range s.Ranges {
			if s.Kind == inet.AddrRanges {
				r.First.Addr, r.Last.Addr = four(r.First.Addr), four(r.Last.Addr)
			}
			elements = append(elements, s.Kind.FormatRange(r))
		}
		text += fmt.Sprintf(" %s (%s) {%s}", s.Kind, s.Comment, strings.Join(elements, ", "))
	}
	return text + " # " + r.Comment
}

// form is how many rules of how many statements the chains have, and how many
// elements the sets; sorted, since names and families differ.
func form(t *nft.Table) []string {
	var list []string
	for _, c := range t.Chains {
		text := fmt.Sprintf("chain, base %t:", c.Base != nil)
		var rules []int
		for _, r := range c.Rules {
			rules = append(rules, len(r.Statements))
		}
		slices.Sort(rules) // they are in the order of their texts
		list = append(list, fmt.Sprint(text, rules))
	}
	for _, s := range t.Sets {
		list = append(list, fmt.Sprintf("set, map %t, interval %t, %d elements", s.Map, s.Interval, s.Len()))
	}
	slices.Sort(list)
	return list
}

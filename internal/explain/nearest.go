// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// halves says which half of a rule of the API some compiled rule of it meets.
type halves struct{ peer, port bool }

// deny completes a side that no rule allows: the nearest rule, why it does not match,
// and one change.
func (c *Cluster) deny(s *Side, d program.Direction, t program.Side, q question, isolating []*cluster.Policy) {
	met := map[program.Origin]halves{}
	for _, m := range t.Misses {
		for _, o := range m.Rule.Origins {
			h := met[o]
			met[o] = halves{h.peer || m.Peer, h.port || m.Port}
		}
	}
	var best *candidate
	for _, p := range isolating {
		for _, r := range rulesOf(p, d) {
			h := met[program.Origin{Policy: p.Key.String(), Index: r.Index}]
			if next := c.candidate(d, p, r, h, q); best == nil || next.rank > best.rank {
				best = next
			}
		}
	}
	if best == nil {
		s.Change = c.noRules(d, isolating)
		return
	}
	s.Nearest, s.Change = &best.miss, best.change
	if best.rank == rankInForce {
		s.Cause, s.Nearest, s.Rules = NotInForce, nil, []RuleRef{best.miss.RuleRef}
		s.Change = "split the policy or remove entries, see findings"
	}
}

func rulesOf(p *cluster.Policy, d program.Direction) []cluster.Rule {
	if d == program.Egress {
		return p.Egress
	}
	return p.Ingress
}

func ref(d program.Direction, o program.Origin) RuleRef {
	namespace, name, _ := strings.Cut(o.Policy, "/")
	return RuleRef{Policy: cluster.Key{Namespace: namespace, Name: name}, Path: fmt.Sprintf("spec.%s[%d]", d, o.Index)}
}

// candidate is a rule that could have allowed the flow. The rank orders candidates: a
// matching peer counts more than a matching port, then how near the peer came. But a peer
// that means everybody says nothing about this flow, and to add a port to its rule opens
// the port to everybody: a rule with the port and one wrong label comes before it.
type candidate struct {
	miss   Miss
	change string
	rank   int
}

const (
	rankInForce = 1000 // a match: the rule found no room
	rankPeer    = 400
	rankLabel   = 300
	rankBroad   = 200
	rankPort    = 100
)

func (c *Cluster) candidate(d program.Direction, p *cluster.Policy, r cluster.Rule, h halves, q question) *candidate {
	at := ref(d, program.Origin{Policy: p.Key.String(), Index: r.Index})
	next := &candidate{miss: Miss{RuleRef: at}}
	field := at.Path + peersOf(d)
	peer := c.corrected(c.peerMiss(d, at.Path, p, r, q), p, at.Path, field)
	port := c.corrected(portMiss(at.Path, r, q, d), p, at.Path, at.Path+".ports")
	// Not every half has a compiled rule of its own: nothing is compiled from a list in
	// which nothing was understood, and an egress rule for a named port of pods is one
	// set of addresses and ports.
	h.peer, h.port = h.peer || peer.matches, h.port || port.matches
	next.miss.PeerMatches, next.miss.PortMatches = h.peer, h.port
	next.rank = rank(h, peer)
	var changes []string
	if !h.peer {
		next.miss.Why, changes = append(next.miss.Why, peer.why...), append(changes, peer.change)
	}
	if !h.port {
		next.miss.Why, changes = append(next.miss.Why, port.why...), append(changes, port.change)
	}
	next.change = strings.Join(slices.Compact(changes), ", and ") + " (" + plain(p.Key.String()) + ")"
	return next
}

func rank(met halves, peer half) int {
	switch {
	case met.peer && met.port:
		return rankInForce
	case met.peer && peer.broad:
		return rankBroad
	case met.peer:
		return rankPeer
	case met.port && peer.near == nearLabel:
		return rankLabel
	case met.port:
		return rankPort + peer.near
	}
	return peer.near
}

// half is one half of a rule in the words of the API object.
type half struct {
	matches bool
	// broad is a match of peers that mean everybody.
	broad bool
	// empty says that nothing in the list was understood.
	empty bool
	// The others say why the flow does not meet it.
	why    []string
	change string
	near   int // greater is nearer, below rankPort
}

// peerMiss describes why no item of from or to matches.
func (c *Cluster) peerMiss(d program.Direction, path string, p *cluster.Policy, r cluster.Rule, q question) half {
	field := path + peersOf(d)
	if r.Peers.Any {
		return half{matches: true, broad: true}
	}
	var items []half
	for i, item := range r.Peers.List {
		items = append(items, c.itemMiss(fmt.Sprintf("%s[%d]", field, i), p, item, q))
	}
	if len(items) == 0 {
		return half{empty: true, why: []string{path + ": no peer in it was understood"},
			change: "correct the peers of " + path}
	}
	best := slices.MaxFunc(items, func(a, b half) int { return cmp.Compare(a.near, b.near) })
	if best.matches {
		return best
	}
	all := half{change: best.change, near: best.near}
	for _, i := range items {
		all.why = append(all.why, i.why...)
	}
	return all
}

// peersOf is the name of the field with the peers of a rule.
func peersOf(d program.Direction) string {
	if d == program.Egress {
		return ".to"
	}
	return ".from"
}

// The ways in which an item of from or to misses, the farthest first, and those in which
// it matches.
const (
	nearBlock = iota + 1
	nearNoPod
	nearNamespace
	nearExcept
	nearLabels
	nearLabel // one requirement of the podSelector
	matchingAll
	matching
)

func (c *Cluster) itemMiss(field string, p *cluster.Policy, item cluster.Peer, q question) half {
	if item.Block != nil {
		return blockMiss(field, p, item.Block, q)
	}
	if q.peer.pod == nil {
		return half{near: nearNoPod,
			why: []string{line("%s: selects pods, and %s is not a pod with a network of its own",
				field, q.peer.addr)}, change: addPeer(field, p, q)}
	}
	peer := q.peer.pod
	if why := c.namespaceMiss(field, p, item, peer.Key.Namespace); why != "" {
		return half{near: nearNamespace, why: []string{why}, change: c.namespaceChange(field, p, item, q)}
	}
	if item.Pods.Matches(peer.Labels) {
		return match(item.Namespaces != nil && item.Namespaces.MatchesAll() && item.Pods.MatchesAll())
	}
	h := half{near: nearLabels, why: []string{whyNot(field+".podSelector", item.Pods, peer.Labels)},
		change: labelChange(field, p, item, q)}
	if len(misses(item.Pods, peer.Labels)) == 1 {
		h.near = nearLabel
	}
	return h
}

func match(broad bool) half {
	if broad {
		return half{matches: true, broad: true, near: matchingAll}
	}
	return half{matches: true, near: matching}
}

func blockMiss(field string, p *cluster.Policy, b *cluster.IPBlock, q question) half {
	at, addr := field+".ipBlock", q.peer.addr
	h := half{near: nearExcept, change: addPeer(field, p, q)}
	switch except := excepts(b, addr); {
	case !b.CIDR.Contains(addr):
		h.near, h.why = nearBlock, []string{line("%s: %s does not contain %s", at, b.CIDR, addr)}
	case len(except) > 0:
		for _, i := range except {
			h.why = append(h.why, line("%s.except[%d]: %s contains %s", at, i, b.Except[i], addr))
		}
		if q.peer.pod == nil {
			h.change = narrowed(at, except, addr)
		}
	case q.peer.pod != nil && addr.IsLinkLocalUnicast() && !b.CIDR.Addr().IsLinkLocalUnicast(): // see ADR 0017
		h.why = []string{at + ": a link-local address of a pod needs a link-local block"}
	default:
		return match(b.CIDR.Bits() == 0)
	}
	return h
}

// excepts returns the positions of the excepts that contain the address.
func excepts(b *cluster.IPBlock, addr netip.Addr) (list []int) {
	for i, e := range b.Except {
		if e.Contains(addr) {
			list = append(list, i)
		}
	}
	return list
}

func narrowed(block string, except []int, addr netip.Addr) string {
	fields := make([]string, len(except))
	for n, i := range except {
		fields[n] = fmt.Sprintf("%s.except[%d]", block, i)
	}
	verb := "it does"
	if len(fields) > 1 {
		verb = "they do"
	}
	return line("narrow %s so that %s not contain %s", strings.Join(fields, " and "), verb, addr)
}

// namespaceMiss says why the namespace of the peer is not meant; "" if it is.
func (c *Cluster) namespaceMiss(field string, p *cluster.Policy, item cluster.Peer, namespace string) string {
	if item.Namespaces == nil {
		if namespace == p.Key.Namespace {
			return ""
		}
		return line("%s: without namespaceSelector it means namespace %s, the peer is in %s",
			field, p.Key.Namespace, namespace)
	}
	n := c.namespaces[namespace]
	if n == nil {
		return line("%s.namespaceSelector: namespace %s does not exist", field, namespace)
	}
	if item.Namespaces.Matches(n.Labels) {
		return ""
	}
	return whyNot(field+".namespaceSelector", *item.Namespaces, n.Labels)
}

// portMiss describes why no port matches.
func portMiss(path string, r cluster.Rule, q question, d program.Direction) half {
	field := path + ".ports"
	flow := flowPort(q.f)
	if r.Ports.Any || slices.ContainsFunc(r.Ports.List, func(p cluster.Port) bool { return contains(p, q, d) }) {
		return half{matches: true}
	}
	if len(r.Ports.List) == 0 {
		return half{empty: true, why: []string{path + ": no port in it was understood"},
			change: "correct the ports of " + path}
	}
	list := make([]string, len(r.Ports.List))
	for i, p := range r.Ports.List {
		list[i] = p.String() + undeclared(p, q, d)
	}
	h := half{why: []string{line("%s: %s, the flow has %s", field, strings.Join(list, ", "), flow)}}
	if q.f.Port == 0 {
		h.change = fmt.Sprintf("a rule without ports: no port stands for %s", flow)
		return h
	}
	h.change = fmt.Sprintf("add {protocol: %s, port: %d} to %s", strings.ToUpper(q.f.Protocol.String()), q.f.Port,
		field)
	return h
}

// contains reports whether an item of ports means the flow's port.
func contains(p cluster.Port, q question, d program.Direction) bool {
	if inet.Protocol(p.Protocol) != q.f.Protocol {
		return false
	}
	if p.Name != "" {
		return slices.Contains(declared(p, destination(q, d)), q.f.Port)
	}
	return p.Any || p.First <= q.f.Port && q.f.Port <= p.Last
}

// destination is the pod in which named ports are looked up.
func destination(q question, d program.Direction) *cluster.Pod {
	if d == program.Egress {
		return q.peer.pod
	}
	return q.subject.pod
}

// declared returns the numbers of a named port: containers of one pod may give different
// ones.
func declared(p cluster.Port, dst *cluster.Pod) (numbers []uint16) {
	if dst == nil {
		return nil
	}
	for _, n := range dst.NamedPorts() {
		if n.Name == p.Name && n.Protocol == p.Protocol {
			numbers = append(numbers, n.Port)
		}
	}
	return numbers
}

// undeclared says that a named port is not declared by the destination.
func undeclared(p cluster.Port, q question, d program.Direction) string {
	if p.Name == "" {
		return ""
	}
	dst := destination(q, d)
	if dst == nil {
		return " (the destination is not a pod: it declares no ports)"
	}
	if numbers := declared(p, dst); len(numbers) > 0 {
		list := strings.Fields(strings.Trim(fmt.Sprint(numbers), "[]"))
		return line(" (%s on %s)", strings.Join(list, " and "), dst.Key)
	}
	return line(" (not declared by %s)", dst.Key)
}

func flowPort(f Flow) string {
	if f.Port == 0 {
		return "protocol " + f.Protocol.String()
	}
	return fmt.Sprintf("%s:%d", f.Protocol, f.Port)
}

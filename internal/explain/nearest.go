// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"fmt"
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
		s.Change = fmt.Sprintf("add a rule to spec.%s of %s: its policies have none", d, s.Isolating[0])
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

// candidate is a rule that could have allowed the flow. The rank orders candidates:
// a matching peer counts more than a matching port, then how near the peer came.
type candidate struct {
	miss   Miss
	change string
	rank   int
}

const (
	rankInForce = 1000 // a match: the rule found no room
	rankPeer    = 200
	rankPort    = 100
)

func (c *Cluster) candidate(d program.Direction, p *cluster.Policy, r cluster.Rule, h halves, q question) *candidate {
	at := ref(d, program.Origin{Policy: p.Key.String(), Index: r.Index})
	next := &candidate{miss: Miss{RuleRef: at}}
	peer, port := c.peerMiss(d, at.Path, p, r, q), portMiss(at.Path, r, q, d)
	// Not every half has a compiled rule of its own: nothing is compiled from a list in
	// which nothing was understood, and an egress rule for a named port of pods is one
	// set of addresses and ports.
	h.peer, h.port = h.peer || peer.matches, h.port || port.matches
	next.miss.PeerMatches, next.miss.PortMatches = h.peer, h.port
	if h.peer {
		next.rank += rankPeer
	} else {
		next.miss.Why = append(next.miss.Why, peer.why...)
		next.rank += peer.near
	}
	if h.port {
		next.rank += rankPort
	} else {
		next.miss.Why = append(next.miss.Why, port.why...)
	}
	switch {
	case h.peer && h.port:
		next.rank = rankInForce
		return next
	case h.peer:
		next.change = port.change
	case h.port:
		next.change = peer.change
	default:
		next.change = peer.change + ", and " + port.change
	}
	next.change += " (" + p.Key.String() + ")"
	return next
}

// half is one half of a rule in the words of the API object.
type half struct {
	matches bool
	// The others say why the flow does not meet it.
	why    []string
	change string
	near   int // greater is nearer, below rankPort
}

// peerMiss describes why no item of from or to matches.
func (c *Cluster) peerMiss(d program.Direction, path string, p *cluster.Policy, r cluster.Rule, q question) half {
	field := path + map[program.Direction]string{program.Ingress: ".from", program.Egress: ".to"}[d]
	if r.Peers.Any {
		return half{matches: true}
	}
	var items []half
	for i, item := range r.Peers.List {
		items = append(items, c.itemMiss(fmt.Sprintf("%s[%d]", field, i), p, item, q))
	}
	if len(items) == 0 {
		return half{why: []string{field + ": no peer in it was understood"}, change: "mend " + field}
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

// The ways in which an item of from or to misses, the farthest first.
const (
	nearBlock = iota + 1
	nearNoPod
	nearNamespace
	nearExcept
	nearLabels
	matching
)

func (c *Cluster) itemMiss(field string, p *cluster.Policy, item cluster.Peer, q question) half {
	if item.Block != nil {
		return blockMiss(field, item.Block, q)
	}
	if q.peer.pod == nil {
		return half{near: nearNoPod, why: []string{fmt.Sprintf("%s: selects pods, and %s is not a pod with a network of its own",
			field, q.peer.addr)},
			change: fmt.Sprintf("add {ipBlock: {cidr: %s}} next to %s", single(q), field)}
	}
	peer := q.peer.pod
	if why := c.namespaceMiss(field, p, item, peer.Key.Namespace); why != "" {
		return half{near: nearNamespace, why: []string{why}, change: c.namespaceChange(field, p, peer)}
	}
	if item.Pods.Matches(peer.Labels) {
		return half{matches: true, near: matching}
	}
	why := whyNot(field+".podSelector", item.Pods, peer.Labels)
	return half{near: nearLabels, why: []string{why}, change: labelChange(field, p, item, peer)}
}

func blockMiss(field string, b *cluster.IPBlock, q question) half {
	for i, e := range b.Except {
		if b.CIDR.Contains(q.peer.addr) && e.Contains(q.peer.addr) {
			at := fmt.Sprintf("%s.ipBlock.except[%d]", field, i)
			return half{near: nearExcept, why: []string{fmt.Sprintf("%s: %s contains %s", at, e, q.peer.addr)},
				change: fmt.Sprintf("narrow %s so that it does not contain %s", at, q.peer.addr)}
		}
	}
	if b.CIDR.Contains(q.peer.addr) && (!q.peer.addr.IsLinkLocalUnicast() || b.CIDR.Addr().IsLinkLocalUnicast()) {
		return half{matches: true, near: matching}
	}
	if b.CIDR.Contains(q.peer.addr) { // a wide block does not mean link-local addresses of pods
		return half{near: nearExcept, why: []string{field + ".ipBlock: a link-local address of a pod needs a link-local block"},
			change: fmt.Sprintf("add {ipBlock: {cidr: %s}} next to %s", single(q), field)}
	}
	return half{near: nearBlock, why: []string{fmt.Sprintf("%s.ipBlock: %s does not contain %s", field, b.CIDR, q.peer.addr)},
		change: fmt.Sprintf("add {ipBlock: {cidr: %s}} next to %s", single(q), field)}
}

// single is the peer's address as a block.
func single(q question) string { return fmt.Sprintf("%s/%d", q.peer.addr, q.peer.addr.BitLen()) }

// namespaceMiss says why the namespace of the peer is not meant; "" if it is.
func (c *Cluster) namespaceMiss(field string, p *cluster.Policy, item cluster.Peer, namespace string) string {
	if item.Namespaces == nil {
		if namespace == p.Key.Namespace {
			return ""
		}
		return fmt.Sprintf("%s: without namespaceSelector it means namespace %s, the peer is in %s", field, p.Key.Namespace, namespace)
	}
	n := c.namespaces[namespace]
	if n == nil {
		return fmt.Sprintf("%s.namespaceSelector: namespace %s does not exist", field, namespace)
	}
	if item.Namespaces.Matches(n.Labels) {
		return ""
	}
	return whyNot(field+".namespaceSelector", *item.Namespaces, n.Labels)
}

func (c *Cluster) namespaceChange(field string, p *cluster.Policy, peer *cluster.Pod) string {
	return fmt.Sprintf("add %s next to %s", itemFor(p, peer), field)
}

// portMiss describes why no port matches.
func portMiss(path string, r cluster.Rule, q question, d program.Direction) half {
	field := path + ".ports"
	flow := flowPort(q.f)
	if r.Ports.Any || slices.ContainsFunc(r.Ports.List, func(p cluster.Port) bool { return contains(p, q, d) }) {
		return half{matches: true}
	}
	if len(r.Ports.List) == 0 {
		return half{why: []string{field + ": no port in it was understood"}, change: "mend " + field}
	}
	list := make([]string, len(r.Ports.List))
	for i, p := range r.Ports.List {
		list[i] = p.String() + undeclared(p, q, d)
	}
	h := half{why: []string{fmt.Sprintf("%s: %s, the flow has %s", field, strings.Join(list, ", "), flow)}}
	if q.f.Port == 0 {
		h.change = fmt.Sprintf("a rule without ports: no port stands for %s", flow)
		return h
	}
	h.change = fmt.Sprintf("add {protocol: %s, port: %d} to %s", strings.ToUpper(q.f.Protocol.String()), q.f.Port, field)
	return h
}

// contains reports whether an item of ports means the flow's port.
func contains(p cluster.Port, q question, d program.Direction) bool {
	if inet.Protocol(p.Protocol) != q.f.Protocol {
		return false
	}
	if p.Name != "" {
		number, ok := declared(p, destination(q, d))
		return ok && number == q.f.Port
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

func declared(p cluster.Port, dst *cluster.Pod) (number uint16, ok bool) {
	if dst == nil {
		return 0, false
	}
	for _, n := range dst.NamedPorts() {
		if n.Name == p.Name && n.Protocol == p.Protocol {
			return n.Port, true
		}
	}
	return 0, false
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
	if number, ok := declared(p, dst); ok {
		return fmt.Sprintf(" (%d on %s)", number, dst.Key)
	}
	return fmt.Sprintf(" (not declared by %s)", dst.Key)
}

func flowPort(f Flow) string {
	if f.Port == 0 {
		return "protocol " + f.Protocol.String()
	}
	return fmt.Sprintf("%s:%d", f.Protocol, f.Port)
}

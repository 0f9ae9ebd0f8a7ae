// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Judge judges conntrack entries as the datapath would now judge the first packets of their
// connections. It is immutable: several goroutines may use it.
type Judge struct {
	ends map[netip.Addr]*end
	node map[netip.Addr]bool // the node's own addresses
	// see Groups
	closed, broadcasts map[netip.Addr]bool
}

// end is the result of looking up one address of an entry.
type end struct {
	name, tenant    string
	egress, ingress side
	reused          bool
}

// side is one direction of a pod: a program that contains only its chain, or nil if the pod is not
// isolated. Eval searches chains and sets by name, one after the other; in a program of one chain
// it finds them at once.
type side struct {
	chain   string
	program *program.Program
}

// NewJudge returns the judge of a program. node are the node's own addresses. Connections of the
// addresses in reused are denied whatever the program says, except connections that the node began:
// the node is not policed.
func NewJudge(p *program.Program, node, reused []netip.Addr) *Judge {
	j := &Judge{ends: make(map[netip.Addr]*end, len(p.Pods)+len(reused)), node: make(map[netip.Addr]bool, len(node))}
	parts := parts{program: p, known: map[string]*program.Program{}}
	for _, pod := range p.Pods {
		e := &end{name: pod.Name, tenant: pod.Tenant}
		if pod.Egress != "" {
			e.egress = parts.side(pod.Egress, program.Pod{Addr: pod.Addr, Egress: pod.Egress})
		}
		if pod.Ingress != "" {
			e.ingress = parts.side(pod.Ingress, program.Pod{Addr: pod.Addr, Ingress: pod.Ingress})
		}
		j.ends[pod.Addr] = e
	}
	for _, a := range reused {
		e := j.ends[a]
		if e == nil {
			e = &end{}
			j.ends[a] = e
		}
		e.reused = true
	}
	for _, a := range node {
		j.node[a] = true
	}
	return j
}

// parts are programs of one chain each, without pods.
type parts struct {
	program *program.Program
	known   map[string]*program.Program
}

func (p parts) side(chain string, pod program.Pod) side {
	part := p.known[chain]
	if part == nil {
		part = &program.Program{}
		if c := p.program.Chain(chain); c != nil {
			part.Chains = []*program.Chain{c}
			part.Sets = p.sets(c)
		}
		p.known[chain] = part
	}
	return side{chain, &program.Program{Pods: []program.Pod{pod}, Chains: part.Chains, Sets: part.Sets}}
}

func (p parts) sets(c *program.Chain) (list []*program.Set) {
	for _, name := range setsOf(c) {
		if s := p.program.Set(name); s != nil {
			list = append(list, s)
		}
	}
	return list
}

// setsOf returns the names of the sets that a chain refers to.
func setsOf(c *program.Chain) (names []string) {
	for _, r := range c.Rules {
		for _, name := range []string{r.PeerSet, r.DestSet, r.PortSet} {
			if name != "" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Judge reports whether the connection of the entry must end, and why. An entry without a pod costs
// two lookups, and two more while a bridge is closed for groups.
func (j *Judge) Judge(e *inet.Connection) (Cut, bool) {
	// The client before any masquerading on this node, and the server after a Service was resolved:
	// the addresses that the chains saw in the first packet.
	client, server := j.ends[e.Orig.Src], j.ends[e.Reply.Src]
	begun := program.Flow{Protocol: e.Protocol, Src: e.Orig.Src, Dst: e.Reply.Src, DstPort: e.Reply.SrcPort}
	if c, denied := j.group(e, begun, client, server); denied {
		return c, true
	}
	if client == nil && server == nil {
		return Cut{}, false
	}
	if a, gone := j.reused(begun, client, server); gone {
		return Cut{Entry: *e, Reason: Reused, Addr: a, Pod: j.ends[a].name, Tenant: j.ends[a].tenant, Flow: begun}, true
	}
	c, denied := j.flow(begun, client, server)
	isTurned := false
	if e.PickedUp {
		turned := program.Flow{Protocol: e.Protocol, Src: e.Reply.Src, Dst: e.Orig.Src, DstPort: e.Orig.SrcPort}
		other, otherDenied := j.flow(turned, server, client)
		if isTurned = denied != otherDenied && turnedRound(e, otherDenied); isTurned {
			c, denied = other, otherDenied
		}
	}
	if denied {
		c.Entry, c.Revival = *e, revival(e, isTurned)
	}
	return c, denied
}

// Denied reports whether the program denies the connection now, and why. The cut has no entry.
func (j *Judge) Denied(f program.Flow) (Cut, bool) { return j.flow(f, j.ends[f.Src], j.ends[f.Dst]) }

// reused returns the address that belonged to another pod when the connection began. Connections
// that the node began continue.
func (j *Judge) reused(f program.Flow, client, server *end) (a netip.Addr, gone bool) {
	switch {
	case j.node[f.Src]:
	case client != nil && client.reused:
		return f.Src, true
	case server != nil && server.reused:
		return f.Dst, true
	}
	return netip.Addr{}, false
}

// flow judges as program.Eval does, in two steps: a flow that passes the first direction must also
// pass the second.
func (j *Judge) flow(f program.Flow, src, dst *end) (Cut, bool) {
	f.FromNode, f.ToNode = j.node[f.Src], j.node[f.Dst]
	// An entry names no interface. A wide block lets no connection with a pod's link-local address
	// begin, so an existing one normally leads to an interface without pods.
	f.SrcElsewhere, f.DstElsewhere = f.Src.IsLinkLocalUnicast(), f.Dst.IsLinkLocalUnicast()
	if src != nil && denies(src.egress, f) {
		return Cut{Reason: Egress, Addr: f.Src, Pod: src.name, Tenant: src.tenant, Chain: src.egress.chain, Flow: f},
			true
	}
	if dst != nil && denies(dst.ingress, f) {
		return Cut{Reason: Ingress, Addr: f.Dst, Pod: dst.name, Tenant: dst.tenant, Chain: dst.ingress.chain, Flow: f},
			true
	}
	return Cut{}, false
}

func denies(s side, f program.Flow) bool {
	return s.program != nil && program.Eval(s.program, f) == program.Drop
}

// ephemeral is the first port that Linux assigns to clients (net.ipv4.ip_local_port_range). Servers
// normally use lower ports.
const ephemeral = 32768

// turnedRound decides which verdict counts for an entry that was picked up, if the program allows
// one direction and not the other: that of the entry as it is (false), or reversed (true). The
// ports tell which end is the client. If they do not, the denied direction counts: a client that
// was cut but is allowed begins a new connection, whereas a denied connection would otherwise
// continue for ever.
func turnedRound(e *inet.Connection, otherDenied bool) bool {
	high, otherHigh := e.Orig.SrcPort >= ephemeral, e.Reply.SrcPort >= ephemeral
	if high != otherHigh {
		return otherHigh
	}
	return otherDenied
}

// revival returns the packet that the replying end would send.
func revival(e *inet.Connection, turned bool) program.Refused {
	switch e.Protocol {
	case inet.TCP, inet.UDP, inet.SCTP:
	default:
		return program.Refused{} // no ports to distinguish packets by
	}
	if turned {
		return program.Refused{Protocol: e.Protocol, Src: e.Orig.Src, Dst: e.Reply.Src, SrcPort: e.Orig.SrcPort,
			DstPort: e.Reply.SrcPort}
	}
	if e.Reply.Dst != e.Orig.Src {
		// Masqueraded on this node: the reply is addressed to the node, which resets it.
		return program.Refused{}
	}
	return program.Refused{Protocol: e.Protocol, Src: e.Reply.Src, Dst: e.Reply.Dst, SrcPort: e.Reply.SrcPort,
		DstPort: e.Reply.DstPort}
}

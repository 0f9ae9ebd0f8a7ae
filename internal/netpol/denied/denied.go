// SPDX-License-Identifier: Apache-2.0

// Package denied makes records of packets that policies deny: between which pods, which
// policies isolate the pod that denied them, and which rule comes nearest. It keeps a bounded
// number of records, at a bounded cost for any number of packets.
//
// It is pure: packets, programs and times are given to it. What it says comes from the
// program that is in the kernel, not from a second evaluation of the policies.
package denied

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Record is a flow that was denied.
type Record struct {
	// Node is the node that denied it.
	Node string `json:"node"`
	// First and Last are the times of the first and the last recorded packet, Count is how many
	// were recorded. More may have been denied: the kernel records some packets a second of each
	// pod.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count uint64    `json:"count"`
	// Verdict is what happened to the packets.
	Verdict Verdict `json:"verdict"`
	// Direction is that of the policies: ingress of the destination, or egress of the source.
	Direction string `json:"direction"`
	Protocol  string `json:"protocol"`
	// Port is the destination port, 0 where there is none: of protocols without ports, and of
	// fragments that do not begin a packet.
	Port        uint16 `json:"port,omitempty"`
	Source      End    `json:"source"`
	Destination End    `json:"destination"`
	// Called is where the client sent the packet, if that was translated into the destination on this node.
	Called *Called `json:"called,omitempty"`
	// Services lead to the destination, as namespace/name:port, if the agent serves them and it is not known where
	// the client sent the packet: it may have called one of them, or the destination itself.
	Services []string `json:"services,omitempty"`
	// Policies isolate the pod in the direction, sorted.
	Policies []cluster.Key `json:"policies"`
	// Nearest is the rule that comes nearest, if the policies have any.
	Nearest *Nearest `json:"nearest,omitempty"`
	// NearestSkipped is true if it was not looked for: too many flows were denied at once.
	NearestSkipped bool `json:"nearestSkipped,omitempty"`

	flow Flow
	by   By
}

// Called is a destination before its translation.
type Called struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"`
	// Service is the port of a Service, as namespace/name:port, if the agent serves it there.
	Service string `json:"service,omitempty"`
}

// String names the Service, or the address and port.
func (c *Called) String() string {
	at := netip.AddrPortFrom(c.Address, c.Port).String()
	if c.Port == 0 {
		at = c.Address.String()
	}
	if c.Service == "" {
		return at
	}
	return "Service " + c.Service + " (" + at + ")"
}

// By says which policies a packet met: those of a direction, enforced or in audit mode.
type By struct {
	Direction program.Direction
	Audit     bool
}

// Verdict is what happened to a packet.
type Verdict string

// The verdicts: of policies that are enforced, and of policies in audit mode, whose packets pass.
const (
	Denied    Verdict = "denied"
	WouldDeny Verdict = "would-deny"
)

// Verdicts lists them.
func Verdicts() []Verdict { return []Verdict{Denied, WouldDeny} }

// End is one end of a flow.
type End struct {
	Address netip.Addr `json:"address"`
	// Pod is the pod that has the address; nil for an address of no known pod.
	Pod *cluster.Key `json:"pod,omitempty"`
	// Node is the node that has the address, with its pods on the host's network.
	Node string `json:"node,omitempty"`
}

// String returns the pod or the node with the address, or the address alone.
func (e End) String() string {
	switch {
	case e.Pod != nil:
		return e.Pod.String() + " (" + e.Address.String() + ")"
	case e.Node != "":
		return "node " + e.Node + " (" + e.Address.String() + ")"
	}
	return e.Address.String()
}

// Subject is the end that the policies isolate.
func (r *Record) Subject() End {
	if r.Direction == program.Egress.String() {
		return r.Source
	}
	return r.Destination
}

// Nearest is a rule that does not allow a flow.
type Nearest struct {
	// Policy is namespace/name, Rule the position in the list of the direction.
	Policy string `json:"policy"`
	Rule   int    `json:"rule"`
	// PeerMatches and PortMatches say which half of the rule is met; not both are.
	PeerMatches bool `json:"peerMatches"`
	PortMatches bool `json:"portMatches"`
}

// View is what is enforced at one moment. It is safe for concurrent use.
type View struct {
	program *program.Program
	pods    func() map[netip.Addr]*policy.Workload // of this node
}

// NewView returns the view of a node's layout and of the program that was compiled from it. It
// costs nothing until a packet is recorded.
func NewView(l *policy.Layout, p *program.Program) *View {
	return &View{program: p, pods: sync.OnceValue(func() map[netip.Addr]*policy.Workload {
		pods := make(map[netip.Addr]*policy.Workload, len(l.Workloads))
		for i := range l.Workloads {
			for _, a := range l.Workloads[i].Pod.IPs {
				pods[a] = &l.Workloads[i]
			}
		}
		return pods
	})}
}

// isolation is that of the pod whose policies judge a flow. It is empty if the pod is not known or not
// isolated any more, so that the packet met an earlier program.
func (v *View) isolation(by By, f Flow) policy.Isolation {
	pod := f.Dst
	if by.Direction == program.Egress {
		pod = f.Src
	}
	w := v.pods()[pod]
	switch {
	case w == nil:
		return policy.Isolation{}
	case by.Direction == program.Egress && by.Audit:
		return w.AuditEgress
	case by.Direction == program.Egress:
		return w.Egress
	case by.Audit:
		return w.AuditIngress
	}
	return w.Ingress
}

// record says why a packet was denied, without the nearest rule.
func (v *View) record(by By, f Flow) (r Record, ok bool) {
	isolation := v.isolation(by, f)
	if !isolation.Isolated {
		return r, false
	}
	verdict := Denied
	if by.Audit {
		verdict = WouldDeny
	}
	r = Record{flow: f, by: by, Verdict: verdict, Direction: by.Direction.String(), Protocol: f.Protocol.String(),
		Port: f.Port, Source: v.end(f.Src), Destination: v.end(f.Dst), Policies: []cluster.Key{}}
	if f.Called.IsValid() {
		r.Called = &Called{Address: f.Called.Addr(), Port: f.Called.Port()}
	}
	for _, p := range isolation.Policies {
		r.Policies = append(r.Policies, p.Policy.Key)
	}
	return r, true
}

func (v *View) end(a netip.Addr) End {
	if w := v.pods()[a]; w != nil {
		return End{Address: a, Pod: &w.Pod.Key}
	}
	return End{Address: a}
}

// nearest returns the rule of which most is met: the peer counts more than the port. Pods
// whose policies say the same share a chain, whose rules may come from policies of another
// pod: such a rule is not named.
func (v *View) nearest(r *Record) *Nearest {
	f := program.Flow{Protocol: r.flow.Protocol, Src: r.flow.Src, Dst: r.flow.Dst, DstPort: r.flow.Port}
	var best *Nearest
	for _, m := range program.ExplainSide(v.program, r.by.Direction, r.by.Audit, f).Misses {
		for _, o := range m.Rule.Origins {
			if !slices.ContainsFunc(r.Policies, func(k cluster.Key) bool { return k.String() == o.Policy }) {
				continue
			}
			next := &Nearest{Policy: o.Policy, Rule: o.Index, PeerMatches: m.Peer, PortMatches: m.Port}
			if best == nil || next.rank() > best.rank() {
				best = next
			}
		}
	}
	return best
}

// rules is how many rules nearest looks at.
func (v *View) rules(r *Record) int {
	f := program.Flow{Src: r.flow.Src, Dst: r.flow.Dst}
	return v.program.RulesOf(r.by.Direction, r.by.Audit, f)
}

func (n *Nearest) rank() int {
	switch {
	case n.PeerMatches:
		return 2
	case n.PortMatches:
		return 1
	}
	return 0
}

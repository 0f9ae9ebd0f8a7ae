// SPDX-License-Identifier: Apache-2.0

// Package denied makes records of packets that policies deny: of which pods they are,
// which policies isolate the pod that denied it, and which rule comes nearest. It keeps a
// bounded number of records.
//
// It is pure: packets, programs and times are given to it. What it says comes from the
// program that is in the kernel, not from a second evaluation of the policies.
package denied

import (
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Record is a flow that was denied.
type Record struct {
	Flow
	Protocol string `json:"protocol"`
	// Direction is that of the policies that denied it: ingress of the destination, or
	// egress of the source.
	Direction string `json:"direction"`
	// Pod is the pod that they isolate.
	Pod cluster.Key `json:"pod"`
	// Peer is the pod at the other end, if it is one of this node's.
	Peer *cluster.Key `json:"peer,omitempty"`
	// Policies isolate the pod in the direction.
	Policies []cluster.Key `json:"policies"`
	// Nearest is the rule that comes nearest, if the policies have any.
	Nearest *Nearest `json:"nearest,omitempty"`
	// Count is how many packets were recorded, the first and the last of them at First and
	// Last. More may have been denied: see the rate of the records.
	Count uint64    `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
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

// View is what is enforced at one moment.
type View struct {
	program *program.Program
	pods    map[netip.Addr]*policy.Workload // of this node
}

// NewView returns the view of a node's layout and of the program that was compiled from it.
func NewView(l *policy.Layout, p *program.Program) *View {
	v := &View{program: p, pods: map[netip.Addr]*policy.Workload{}}
	for i := range l.Workloads {
		w := &l.Workloads[i]
		for _, a := range w.Pod.IPs {
			v.pods[a] = w
		}
	}
	return v
}

// Record says why a packet was denied in a direction. ok is false if the pod is not known
// or not isolated any more: the packet met an earlier program.
func (v *View) Record(d program.Direction, f Flow, at time.Time) (r Record, ok bool) {
	subject, peer := v.pods[f.Dst], v.pods[f.Src]
	if d == program.Egress {
		subject, peer = peer, subject
	}
	if subject == nil {
		return r, false
	}
	isolation := subject.Ingress
	if d == program.Egress {
		isolation = subject.Egress
	}
	if !isolation.Isolated {
		return r, false
	}
	r = Record{Flow: f, Protocol: f.Protocol.String(), Direction: d.String(), Pod: subject.Pod.Key, Count: 1,
		First: at, Last: at,
		Policies: []cluster.Key{}}
	for _, p := range isolation.Policies {
		r.Policies = append(r.Policies, p.Policy.Key)
	}
	r.Nearest = v.nearest(d, f, r.Policies)
	if peer != nil {
		r.Peer = &peer.Pod.Key
	}
	return r, true
}

// nearest returns the rule of which most is met: the peer counts more than the port. Pods
// whose policies say the same share a chain, whose rules may come from policies of another
// pod: such a rule is not named.
func (v *View) nearest(d program.Direction, f Flow, of []cluster.Key) *Nearest {
	trace := program.Explain(v.program, program.Flow{Protocol: f.Protocol, Src: f.Src, Dst: f.Dst, DstPort: f.Port})
	side := trace.Ingress
	if d == program.Egress {
		side = trace.Egress
	}
	var best *Nearest
	for _, m := range side.Misses {
		for _, o := range m.Rule.Origins {
			if !slices.ContainsFunc(of, func(k cluster.Key) bool { return k.String() == o.Policy }) {
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

func (n *Nearest) rank() int {
	switch {
	case n.PeerMatches:
		return 2
	case n.PortMatches:
		return 1
	}
	return 0
}

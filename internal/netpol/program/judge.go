// SPDX-License-Identifier: Apache-2.0

package program

import (
	"net/netip"

	"github.com/podwall/podwall/internal/inet"
)

// Judge answers many questions about one program. Its answers are those of Eval; it finds
// pods and chains by name at once, and asks a chain once about a peer and a port. Pods that
// share a chain share the answer. Its methods must not be called concurrently.
type Judge struct {
	program *Program
	pods    map[netip.Addr]*Pod
	chains  map[string]*judged
}

// judged is a chain with the answers that it gave.
type judged struct {
	// subject is true if an answer depends on the pod's own address too.
	subject bool
	answers map[asked]bool
}

// asked is all of a flow that an answer of a chain depends on.
type asked struct {
	peer, subject            netip.Addr
	protocol                 inet.Protocol
	port                     uint16
	toNode, fromElse, toElse bool
}

// NewJudge returns a Judge of a program, which must not change afterwards.
func NewJudge(p *Program) *Judge {
	j := &Judge{program: p, pods: make(map[netip.Addr]*Pod, len(p.Pods)),
		chains: make(map[string]*judged, len(p.Chains))}
	for i := range p.Pods {
		j.pods[p.Pods[i].Addr] = &p.Pods[i]
	}
	for _, c := range p.Chains {
		state := &judged{answers: map[asked]bool{}}
		for _, r := range c.Rules {
			// The peer of an ingress chain is the source; a named port belongs to the pod.
			state.subject = state.subject || c.Direction == Ingress && r.DestSet != ""
		}
		j.chains[c.Name] = state
	}
	return j
}

// Allows reports whether the egress of the source, or the ingress of the destination, lets
// the flow pass on this node. The flow of a pod to itself always passes.
func (j *Judge) Allows(d Direction, f Flow) bool {
	if f.FromNode || f.Src == f.Dst && j.pods[f.Src] != nil || d == Ingress && f.ToNode {
		return true
	}
	addr := f.Dst
	if d == Egress {
		addr = f.Src
	}
	pod := j.pods[addr]
	switch {
	case pod == nil:
		return true
	case d == Egress:
		return pod.Egress == "" || j.ask(pod.Egress, f.Dst, addr, f)
	}
	return pod.Ingress == "" || j.ask(pod.Ingress, f.Src, addr, f)
}

func (j *Judge) ask(name string, peer, subject netip.Addr, f Flow) bool {
	c := j.chains[name]
	if c == nil {
		return false
	}
	q := asked{peer: peer, protocol: f.Protocol, port: f.DstPort, toNode: f.ToNode, fromElse: f.SrcElsewhere,
		toElse: f.DstElsewhere}
	if c.subject {
		q.subject = subject
	}
	answer, known := c.answers[q]
	if !known {
		answer = j.program.allows(name, f)
		c.answers[q] = answer
	}
	return answer
}

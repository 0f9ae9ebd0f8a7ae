// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
)

// sending is one packet of a probe in a pod, and what the explanation says about it. A packet to a
// Service has the verdicts of all paths that it may take.
type sending struct {
	target              connect.Target
	source, destination string
	allowed, denied     bool
}

// sendings returns the packets that compare answers about paths with the kernel, and the pod that
// sends them: one to each pod, and one to each address of a Service or node port in addition. Paths on
// which nodes translate the source are compared by the latter only.
func (sc *scene) sendings(answers []answer) (*cluster.Pod, []sending, error) {
	var pod *cluster.Pod
	var list []sending
	for _, a := range answers {
		from := sc.answers.Pod(a.way.egress.Src.Pod)
		switch {
		case from == nil:
			return nil, nil, fmt.Errorf("--probe sends from a pod of the cluster, and %s is none: name a pod as the "+
				"source", a.way.egress.Src)
		case pod != nil && pod != from:
			return nil, nil, fmt.Errorf("--probe adds a container to one pod, and the source means several that "+
				"differ, such as %s and %s: name one of them", pod.Key, from.Key)
		}
		pod = from
		if !a.way.egress.Protocol.HasPorts() {
			return nil, nil, fmt.Errorf("--probe sends TCP, UDP and SCTP, not %s", a.Protocol)
		}
		list = add(list, a)
	}
	if len(list) > connect.MaxTargets {
		return nil, nil, fmt.Errorf("these are %d packets, and --probe sends %d at most: name a pod as the "+
			"destination, or one family with --ip-family", len(list), connect.MaxTargets)
	}
	return pod, list, nil
}

// add adds the packets of a path to those that there are.
func add(list []sending, a answer) []sending {
	packet := sending{source: a.Source, allowed: a.Allowed, denied: !a.Allowed}
	for _, to := range a.stops() {
		one := packet
		one.destination = to.name
		one.target = connect.Target{Protocol: a.way.egress.Protocol, To: to.at}
		i := slices.IndexFunc(list, func(s sending) bool { return s.target == one.target })
		if i < 0 {
			list = append(list, one)
			continue
		}
		list[i].allowed, list[i].denied = list[i].allowed || one.allowed, list[i].denied || one.denied
	}
	return list
}

// stop is an address to which a packet may be sent.
type stop struct {
	name string
	at   netip.AddrPort
}

// stops returns where to send packets that take the path of an answer.
func (a answer) stops() (list []stop) {
	if !a.way.translated() { // else the pods see another source
		list = append(list, stop{a.Destination, netip.AddrPortFrom(a.DestinationAddress, a.Port)})
	}
	if a.way.entry.IsValid() {
		list = append(list, stop{a.way.entryName, a.way.entry})
	}
	return list
}

// compare returns what the answers to packets say, beside what was explained.
func compare(list []sending, r connect.Report) *probe {
	p := &probe{}
	for i, s := range list {
		one := s.compare(r.Answers[i], r)
		p.Packets = append(p.Packets, one)
		p.Differs = p.Differs || one.Verdict != isUnknown && !one.Agrees
	}
	return p
}

func (s sending) compare(o connect.Outcome, r connect.Report) probedPath {
	p := probedPath{Source: s.source, Destination: s.destination, Family: familyName(s.target.To.Addr()),
		Verdict: isUnknown, Protocol: s.target.Protocol.String(), Address: s.target.To.String(), Answer: o}
	end := ""
	switch o.Verdict(s.target.Protocol) {
	case connect.Arrived:
		p.Verdict, p.Agrees = "arrived", s.allowed
	case connect.Dropped:
		p.Verdict, p.Agrees = "was dropped", s.denied
	}
	switch {
	case p.Verdict == isUnknown:
	case s.allowed && s.denied:
		end = ", as explained for some of its pods"
	case p.Agrees:
		end = ", as explained"
	default:
		end = ", NOT as explained"
	}
	p.text = fmt.Sprintf("probe: %s to %s, %s %s: %s%s", s.source, s.destination, p.Protocol, p.Address,
		meaning(o, s.target.Protocol, r), end)
	return p
}

// meaning says in words what came back, and what that proves.
func meaning(o connect.Outcome, p inet.Protocol, r connect.Report) string {
	switch {
	case o == connect.Connected, o == connect.Answered, o == connect.Refused:
		return string(o) + ": the packet arrived"
	case o == connect.Rejected:
		return "rejected by ICMP: the packet was dropped"
	case o == connect.Silent && p == inet.UDP:
		return fmt.Sprintf("no answer in %d s: unknown, a UDP server need not answer", r.Seconds)
	case o == connect.Silent:
		return fmt.Sprintf("no answer in %d s: the packet was dropped", r.Seconds)
	case o == connect.Unreachable:
		return "no route to it: unknown what policies do"
	case o == connect.Unsupported:
		return "the kernel of the node does not have this protocol: unknown"
	}
	return fmt.Sprintf("it could not be sent (%s): unknown", r.Detail)
}

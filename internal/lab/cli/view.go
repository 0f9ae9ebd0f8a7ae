// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

// end is a row and a column of a matrix.
type end struct {
	name  string       // namespace/name, or the host's name
	short string       // column title
	place string       // endpoint of the bed
	pod   *cluster.Pod // nil for a host outside
	addrs []netip.Addr
	// workload is the object that the pod was made of, without namespace.
	workload string
	// further is an address that an annotation adds to the pod: the end is the pod by
	// this address.
	further string
}

func (e end) address(v6 bool) (netip.Addr, bool) {
	for _, a := range e.addrs {
		if a.Is6() == v6 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (e end) namespace() string {
	if e.pod == nil {
		return ""
	}
	return e.pod.Key.Namespace
}

// port is what is tried.
type port struct {
	proto  packet.Protocol
	number uint16
}

// String returns the notation of --probe, as in tcp:80.
func (p port) String() string { return fmt.Sprintf("%s:%d", p.proto, p.number) }

func parsePort(s string) (port, error) {
	proto, number, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(number, 10, 16)
	if err == nil && n > 0 {
		for _, p := range []packet.Protocol{packet.TCP, packet.UDP, packet.SCTP} {
			if p.String() == proto {
				return port{p, uint16(n)}, nil
			}
		}
	}
	return port{}, fmt.Errorf("unknown port %q, want tcp, udp or sctp, a colon and a number, as in tcp:80", s)
}

// flow is one cell of a view.
type flow struct {
	v6             bool
	port, src, dst int // indexes
}

// view is who reaches whom at one moment.
type view struct {
	ends    []end
	ports   []port
	flows   []flow // in the order in which they were asked
	answers map[flow]trial.Answer
	scope   scope
	// audited are flows that arrived only because policies are in audit mode; nil if it was not asked.
	audited map[flow]bool
}

// askAll asks for every pair of ends in the scope that policies can speak about, on
// every port, over every family that both have.
func askAll(ctx context.Context, t *trial.Trial, ends []end, ports []port, s scope) (*view, error) {
	v := &view{ends: ends, ports: ports, answers: map[flow]trial.Answer{}, scope: s}
	var questions []trial.Question
	for p := range ports {
		for _, v6 := range []bool{false, true} {
			for src := range ends {
				for dst := range ends {
					f := flow{v6, p, src, dst}
					if q, ok := v.question(f); ok {
						v.flows, questions = append(v.flows, f), append(questions, q)
					}
				}
			}
		}
	}
	answers, err := t.Probe(ctx, questions)
	if err != nil {
		return nil, err
	}
	for i, f := range v.flows {
		v.answers[f] = answers[i]
	}
	return v, nil
}

func (v *view) question(f flow) (trial.Question, bool) {
	src, dst := v.ends[f.src], v.ends[f.dst]
	from, ok1 := src.address(f.v6)
	to, ok2 := dst.address(f.v6)
	if !v.scope.asks(f.src, f.dst) || !ok1 || !ok2 || src.place == dst.place || src.pod == nil && dst.pod == nil {
		return trial.Question{}, false
	}
	p := v.ports[f.port]
	return trial.Question{From: src.place, To: dst.place, Src: from, Dst: to, Proto: p.proto, Port: p.number}, true
}

func (f flow) family() string {
	if f.v6 {
		return "IPv6"
	}
	return "IPv4"
}

// describe returns one line for people.
func (v *view) describe(f flow) string {
	return fmt.Sprintf("%s → %s %s %s", v.ends[f.src].name, v.ends[f.dst].name, v.ports[f.port], f.family())
}

// packets returns how many were sent for the view.
func (v *view) packets() (n int) {
	for _, a := range v.answers {
		n += a.Packets
	}
	return n
}

// wrong says what is wrong with an answer, or nothing.
func (v *view) wrong(f flow, want bool) string {
	a := v.answers[f]
	switch {
	case a.Verdict == trial.Allowed && !want:
		return "LEAK  " + v.describe(f)
	case a.Verdict == trial.Denied && want:
		return "BLOCK " + v.describe(f)
	case a.Problem != "":
		return "ERROR " + v.describe(f) + ": " + a.Problem
	}
	return ""
}

// compare lists where the kernel differs from what the oracle reads in the
// policies.
func (v *view) compare(snap *cluster.Snapshot) []string {
	var list []string
	for _, f := range v.flows {
		p := v.ports[f.port]
		want := oracle.Judge(snap, oracle.Flow{Protocol: cluster.Protocol(p.proto), Port: p.number,
			Src: v.ends[f.src].oracle(f.v6), Dst: v.ends[f.dst].oracle(f.v6)}).Allowed
		if text := v.wrong(f, want); text != "" {
			list = append(list, text)
		}
	}
	return list
}

func (e end) oracle(v6 bool) oracle.Endpoint {
	a, _ := e.address(v6)
	if e.pod == nil {
		return oracle.Outside(a)
	}
	return oracle.Endpoint{Pod: e.pod.Key, Addr: a}
}

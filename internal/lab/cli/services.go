// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

// front is one port of a Service at one of its addresses.
type front struct {
	name string // namespace/name
	lab.Service
}

// fronts are complete.Fronts, for the lab: with the backends that are pods with a network
// of their own.
func fronts(services []*corev1.Service, pods []*cluster.Pod, taken func(netip.Addr) bool) []front {
	var list []front
	for _, f := range complete.Fronts(services, pods, taken) {
		f.Backends = slices.DeleteFunc(f.Backends, func(b netip.AddrPort) bool { return !podHas(pods, b.Addr()) })
		if len(f.Backends) == 0 {
			continue
		}
		list = append(list, front{name: f.Name, Service: lab.Service{Front: f.Front,
			Proto: packet.Protocol(f.Protocol), Backends: f.Backends}})
	}
	return list
}

// serviceView is who reaches a Service.
type serviceView struct {
	Service string `json:"service"`
	Front   string `json:"front"` // as in tcp 10.96.0.10:80
	// From is by pod: 1 arrived, 0 dropped, ? not known, ~ reaches some of the Service's pods.
	From map[string]string `json:"from"`

	wrong []string
}

// measureServices asks every pod for every front. One packet meets one backend:
// what must become of it is known only where all backends have one verdict.
func measureServices(ctx context.Context, t *trial.Trial, p *plan) ([]serviceView, error) {
	var views []serviceView
	for _, f := range p.services {
		if !p.mine(f) {
			continue
		}
		v := serviceView{Service: f.name, Front: fmt.Sprintf("%s %s", f.Proto, f.Front), From: map[string]string{}}
		var from []end
		var questions []trial.Question
		for i, e := range p.ends {
			if src, ok := e.address(f.Front.Addr().Is6()); ok && e.pod != nil && p.scope.from[i] {
				from = append(from, e)
				questions = append(questions, trial.Question{From: e.place, Src: src, Dst: f.Front.Addr(),
					Proto: f.Proto, Port: f.Front.Port()})
			}
		}
		answers, err := t.Probe(ctx, questions)
		if err != nil {
			return nil, err
		}
		for i, a := range answers {
			v.From[from[i].name] = a.Verdict.String()
			if len(f.expected(from[i], p.snap)) > 1 {
				v.From[from[i].name] = someBackends
			}
			if text := f.wrong(from[i], a, p.snap); text != "" {
				v.wrong = append(v.wrong, text)
			}
		}
		views = append(views, v)
	}
	return views, nil
}

// someBackends marks a Service of which a pod reaches some backends and others not: one
// packet meets one of them.
const someBackends = "~"

// expected are the verdicts that a packet may get, by what the policies say.
func (f front) expected(src end, snap *cluster.Snapshot) map[bool]bool {
	verdicts := map[bool]bool{}
	for _, b := range f.Backends {
		verdicts[oracle.Judge(snap, oracle.Flow{Protocol: cluster.Protocol(f.Proto), Port: b.Port(),
			Src: src.oracle(b.Addr().Is6()), Dst: oracle.Addr(b.Addr())}).Allowed] = true
	}
	return verdicts
}

func (f front) wrong(src end, a trial.Answer, snap *cluster.Snapshot) string {
	verdicts := f.expected(src, snap)
	what := fmt.Sprintf("%s → %s (%s %s)", src.name, f.name, f.Proto, f.Front)
	switch {
	case a.Problem != "":
		return "ERROR " + what + ": " + a.Problem
	case a.Verdict == trial.Allowed && !verdicts[true]:
		return "LEAK  " + what
	case a.Verdict == trial.Denied && !verdicts[false]:
		return "BLOCK " + what
	}
	return ""
}

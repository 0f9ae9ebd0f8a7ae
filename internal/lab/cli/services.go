// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/cluster"
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

// fronts returns what the Services with a selector lead to. A Service without
// an address gets one that is not taken; a headless one has none.
func fronts(services []*corev1.Service, pods []*cluster.Pod, taken func(netip.Addr) bool) []front {
	var list []front
	free := numbered(taken)
	for _, s := range services {
		if len(s.Spec.Selector) == 0 || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		for _, a := range clusterIPs(s, free) {
			for _, p := range s.Spec.Ports {
				proto, ok := cluster.ParseProtocol(cmp.Or(string(p.Protocol), "TCP"))
				if !ok || p.Port < 1 || p.Port > 65535 {
					continue
				}
				list = append(list, front{name: s.Namespace + "/" + s.Name, Service: lab.Service{
					Front: netip.AddrPortFrom(a, uint16(p.Port)), Proto: packet.Protocol(proto), Backends: backends(s, p, proto, a.Is6(), pods)}})
			}
		}
	}
	return slices.DeleteFunc(list, func(f front) bool { return len(f.Backends) == 0 })
}

func clusterIPs(s *corev1.Service, free func() []netip.Addr) []netip.Addr {
	var list []netip.Addr
	for _, text := range append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(list, a.Unmap()) {
			list = append(list, a.Unmap())
		}
	}
	if len(list) > 0 {
		return list
	}
	return free()
}

// numbered returns a function that gives the next addresses of Services.
func numbered(taken func(netip.Addr) bool) func() []netip.Addr {
	next := 0
	return func() []netip.Addr {
		for ; ; next++ {
			third, fourth := byte(next/200), byte(next%200+10)
			four := netip.AddrFrom4([4]byte{10, 96, third, fourth})
			six := netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 5: 0x96, 14: third, 15: fourth})
			if !taken(four) && !taken(six) {
				next++
				return []netip.Addr{four, six}
			}
		}
	}
}

func backends(s *corev1.Service, p corev1.ServicePort, proto cluster.Protocol, v6 bool, pods []*cluster.Pod) []netip.AddrPort {
	selector := labels.SelectorFromSet(s.Spec.Selector)
	var list []netip.AddrPort
	for _, pod := range pods {
		number := targetPort(p, proto, pod)
		if !pod.Networked() || pod.Key.Namespace != s.Namespace || !selector.Matches(pod.Labels) || number == 0 {
			continue
		}
		for _, a := range pod.IPs {
			if a.Is6() == v6 {
				list = append(list, netip.AddrPortFrom(a, number))
			}
		}
	}
	return list
}

// targetPort resolves a name by the pod's container ports.
func targetPort(p corev1.ServicePort, proto cluster.Protocol, pod *cluster.Pod) uint16 {
	if p.TargetPort.Type == intstr.String {
		for _, n := range pod.NamedPorts() {
			if n.Name == p.TargetPort.StrVal && n.Protocol == proto {
				return n.Port
			}
		}
		return 0
	}
	return uint16(cmp.Or(p.TargetPort.IntVal, p.Port))
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
				questions = append(questions, trial.Question{From: e.place, Src: src, Dst: f.Front.Addr(), Proto: f.Proto, Port: f.Front.Port()})
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

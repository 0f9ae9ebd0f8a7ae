// SPDX-License-Identifier: Apache-2.0

package gencase

import (
	"cmp"
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/lab/cases"
)

// maxProbes bounds the probes of a state: each is tried from everybody to
// everybody.
const maxProbes = 10

type point struct {
	protocol string
	port     uint16
}

// probes returns ports to ask about: one of each protocol that nobody names,
// some that pods have names for, and some of those that policies name and their
// neighbours.
func (w *world) probes(t *rapid.T) []cases.Probe {
	found := map[point]bool{}
	for i := range w.policies {
		for _, r := range w.policies[i].Spec.Ingress {
			addPoints(found, r.Ports)
		}
		for _, r := range w.policies[i].Spec.Egress {
			addPoints(found, r.Ports)
		}
	}
	named := map[point]bool{}
	for _, p := range w.pods {
		for _, c := range p.Ports {
			named[point{c.Protocol, c.Port}] = true
		}
	}
	points := slices.Concat(chosen(t, named, maxProbes/2), chosen(t, found, maxProbes))
	for _, protocol := range protocols() {
		plain := point{protocol, uint16(pick(t, "unnamed port", 1, 54, 1024, 65535))}
		points = slices.Insert(points, 0, plain)
	}
	var list []cases.Probe
	asked := map[point]bool{}
	for _, p := range points {
		if len(list) < maxProbes && !asked[p] {
			asked[p], list = true, append(list, cases.Probe{Protocol: p.protocol, Port: p.port})
		}
	}
	return list
}

// chosen returns at most n of the points, in random order.
func chosen(t *rapid.T, found map[point]bool, n int) []point {
	points := slices.SortedFunc(maps.Keys(found), func(a, b point) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
	})
	points = rapid.Permutation(points).Draw(t, "order of probes")
	return points[:min(n, len(points))]
}

// addPoints adds the ends of every range and their neighbours. A protocol that
// is not one of the API's is asked as TCP: nothing must come of it.
func addPoints(found map[point]bool, list []networkingv1.NetworkPolicyPort) {
	for _, p := range list {
		protocol := "TCP"
		if p.Protocol != nil && slices.Contains(protocols(), string(*p.Protocol)) {
			protocol = string(*p.Protocol)
		}
		if p.Port == nil || p.Port.Type != intstr.Int {
			continue // names are asked at the pods that declare them
		}
		last := p.Port.IntVal
		if p.EndPort != nil {
			last = *p.EndPort
		}
		for _, n := range []int32{p.Port.IntVal - 1, p.Port.IntVal, last, last + 1} {
			if n > 0 && n <= 65535 {
				found[point{protocol, uint16(n)}] = true
			}
		}
	}
}

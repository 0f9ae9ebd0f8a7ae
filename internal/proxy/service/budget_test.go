// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// One Service with many ports at many addresses, or with many endpoints behind many ports, is served in
// part: the first fronts, which are those of its cluster addresses. Others do not notice.
func TestAServiceHasABudget(t *testing.T) {
	for _, tt := range []struct {
		name                    string
		ports, outer, endpoints int
		fronts, slots           int
		said                    string
	}{
		{"within it", 3, 2, 4, 3 * 3, 3 * 3 * 4, ""},
		{"too many fronts", 100, 50, 1, MaxFronts, MaxFronts, "from 192.0.2.39 port 1096/tcp on it is not served"},
		{"too many slots", 10, 0, 50_000, 2, 2 * 50_000, "from 10.96.0.0 port 1002/tcp on it is not served"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap := many(2, 1)
			s, slice := snap.Services[0], snap.Slices[0]
			s.Ports, slice.Ports = nil, nil
			for i := range tt.ports {
				name := string(rune('a' + i))
				s.Ports = append(s.Ports, cluster.ServicePort{Name: name, Protocol: cluster.TCP, Port: uint16(1000 + i)})
				slice.Ports = append(slice.Ports, cluster.EndpointPort{Name: name, Protocol: cluster.TCP, Port: 80})
			}
			s.External = &cluster.External{}
			a := netip.MustParseAddr("192.0.2.0")
			for range tt.outer {
				s.External.IPs, a = append(s.External.IPs, a), a.Next()
			}
			place := slice.Endpoints[0].Placement
			slice.Endpoints, a = nil, netip.MustParseAddr("10.0.0.0")
			for range tt.endpoints {
				slice.Endpoints, a = append(slice.Endpoints, cluster.Endpoint{Addr: a.Next(), Placement: place}), a.Next()
			}
			m, found := Resolve(snap, Settings{})
			if r, sl := m.IPv4.Routes.Len()-1, m.IPv4.Slots.Len()-1; r != tt.fronts || sl != tt.slots {
				t.Errorf("%d fronts, %d slots, want %d and %d", r, sl, tt.fronts, tt.slots)
			}
			if _, ok := m.IPv4.Route(program.Front{Addr: s.ClusterIPs[0], Protocol: inet.TCP, Port: 1000}); !ok {
				t.Error("the first port of the cluster address is not served")
			}
			if said := len(found) == 1 && strings.Contains(found[0].Message, tt.said) && found[0].Object == s.Key; said !=
				(tt.said != "") {
				t.Errorf("found %v", found)
			}
		})
	}
}

// crowd returns a cluster whose namespace "ns" has six Services that weigh 50,002 each, of which its budget has
// room for five, and a small one that is the youngest; and one in another namespace.
func crowd() *cluster.ServiceSnapshot {
	snap := many(8, 1)
	for i, s := range snap.Services {
		s.Created = int64(i)
		s.External = &cluster.External{Local: true, HealthPort: uint16(31_000 + i)}
		if i == 7 {
			s.Key.Namespace, snap.Slices[i].Key.Namespace = "other", "other"
		}
		if i >= 6 {
			continue
		}
		end := snap.Slices[i].Endpoints[0]
		for range 25_000 - 1 {
			end.Addr = end.Addr.Next()
			snap.Slices[i].Endpoints = append(snap.Slices[i].Endpoints, end)
		}
	}
	return snap
}

// Whose Services take more than their namespace may have pays alone: the youngest that do not fit are not
// served, and load balancers send nothing to them.
func TestANamespaceHasABudget(t *testing.T) {
	snap, x := crowd(), NewIndex(Settings{Node: "one"})
	x.apply(all(snap))
	m, found := Resolve(snap, x.settings)
	if text(m, found) != text(x.Model(), x.Diagnostics()) {
		t.Fatal("the index has something else than recomputation")
	}
	served := func(m *Model) (list []int) {
		for i, s := range snap.Services {
			if _, ok := m.IPv4.Route(program.Front{Addr: s.ClusterIPs[0], Protocol: inet.TCP, Port: 80}); ok {
				list = append(list, i)
			}
		}
		return list
	}
	if got := served(m); !slices.Equal(got, []int{0, 1, 2, 3, 4, 6, 7}) {
		t.Errorf("served: %v", got)
	}
	if len(found) != 1 || found[0].Object != snap.Services[5].Key || !strings.Contains(found[0].Message, "262144") {
		t.Errorf("found %v", found)
	}
	for i, h := range m.Health {
		if want := i != 5; (h.Ready > 0) != want {
			t.Errorf("load balancers of Service %d are told of %d endpoints", i, h.Ready)
		}
	}
	x.apply(&cluster.ServiceDelta{Services: []cluster.Change[cluster.Service]{{Old: snap.Services[0]}}})
	if got := served(x.Model()); !slices.Equal(got, []int{1, 2, 3, 4, 5, 6, 7}) || len(x.Diagnostics()) != 0 {
		t.Errorf("after one went, served: %v, found %v", got, x.Diagnostics())
	}
}

// Services that all want the same fronts cost what their namespace may have: the number of claims is what
// the time of a change grows with.
func TestRivalsForTheSameFrontsAreFew(t *testing.T) {
	snap := many(300, 0)
	for i, s := range snap.Services {
		s.Created, s.Ports, s.External = int64(i), nil, &cluster.External{}
		for j := range 100 {
			s.Ports = append(s.Ports, cluster.ServicePort{Protocol: cluster.TCP, Port: uint16(1000 + j)})
		}
		a := netip.MustParseAddr("192.0.2.0")
		for range 39 {
			s.External.IPs, a = append(s.External.IPs, a), a.Next()
		}
	}
	x := NewIndex(Settings{})
	x.apply(all(snap))
	claims := 0
	for _, e := range x.services {
		claims += len(e.claims)
	}
	if claims == 0 || claims > MaxNamespaceWeight {
		t.Errorf("%d claims, want %d at most", claims, MaxNamespaceWeight)
	}
}

// The largest Service that the conversion lets through costs little more than its budget.
func BenchmarkTheLargestService(b *testing.B) {
	snap := many(1, 0)
	s, slice := snap.Services[0], snap.Slices[0]
	s.Ports, slice.Ports, s.External = nil, nil, &cluster.External{}
	a := netip.MustParseAddr("198.18.0.0")
	for i := range uint16(1024) {
		s.Ports = append(s.Ports, cluster.ServicePort{Name: "x", Protocol: cluster.TCP, Port: 1000 + i})
		s.External.IPs, a = append(s.External.IPs, a), a.Next()
		s.External.LoadBalancerIPs, a = append(s.External.LoadBalancerIPs, a), a.Next()
	}
	slice.Ports = []cluster.EndpointPort{{Name: "x", Protocol: cluster.TCP, Port: 80}}
	place := &cluster.Placement{Node: "one", Ready: true}
	for range 66_000 {
		slice.Endpoints, a = append(slice.Endpoints, cluster.Endpoint{Addr: a, Placement: place}), a.Next()
	}
	for b.Loop() {
		Resolve(snap, Settings{Node: "one"})
	}
}

// Who writes a Service with a thousand addresses that it cannot have, or that older ones have, does not fill
// the list of findings, which each pass reads.
func TestFindingsOfAServiceAreFew(t *testing.T) {
	snap := many(1001, 0)
	for i, s := range snap.Services {
		s.Created = int64(i)
	}
	wide := func(s *cluster.Service, outer netip.Addr) {
		s.Ports, s.External = nil, &cluster.External{}
		for i := range 100 {
			s.Ports = append(s.Ports, cluster.ServicePort{Protocol: cluster.TCP, Port: uint16(1000 + i)})
		}
		for range 30 {
			s.External.IPs, outer = append(s.External.IPs, outer), outer.Next()
		}
	}
	free := netip.MustParseAddr("192.0.2.0")
	wide(snap.Services[0], free)
	wide(snap.Services[1], free)
	last := snap.Services[1000]
	last.External = &cluster.External{}
	for _, s := range snap.Services[:1000] {
		last.External.IPs = append(last.External.IPs, s.ClusterIPs...)
	}
	_, found := Resolve(snap, Settings{})
	count := map[cluster.Key]int{}
	for _, d := range found {
		count[d.Object]++
	}
	if len(count) != 2 || count[snap.Services[1].Key] != maxFindings || count[last.Key] != maxFindings {
		t.Errorf("the numbers of findings are %v, want two of %d", count, maxFindings)
	}
	for _, more := range []string{"(and 2990 more findings", "(and 990 more findings"} {
		if !slices.ContainsFunc(found, func(d cluster.Diagnostic) bool { return strings.Contains(d.Message, more) }) {
			t.Errorf("no finding says %q", more)
		}
	}
	x := NewIndex(Settings{})
	x.apply(all(snap))
	if got := x.Diagnostics(); !slices.Equal(got, found) {
		t.Errorf("step by step other things are found: %v", got)
	}
	x.apply(&cluster.ServiceDelta{Services: []cluster.Change[cluster.Service]{{Old: last}}})
	if got := x.Diagnostics(); len(got) != maxFindings {
		t.Errorf("%d findings after the Service went, want those of the other: %d", len(got), maxFindings)
	}
}

// A Service that loses its fronts to an older one can change without having the others computed again that
// want them too.
func TestOneThatLosesChangesAlone(t *testing.T) {
	snap := many(3, 1)
	for i, s := range snap.Services {
		s.Created, s.External = int64(i), &cluster.External{IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	}
	x := NewIndex(Settings{})
	x.apply(all(snap))
	held := func(i int) *input { return x.services[snap.Services[i].Key].held }
	first, second, third := held(0), held(1), held(2)
	changed := *snap.Services[2]
	changed.Affinity = 10
	x.apply(&cluster.ServiceDelta{Services: []cluster.Change[cluster.Service]{{Old: snap.Services[2], New: &changed}}})
	if held(0) != first || held(1) != second || held(2) == third {
		t.Error("another Service was computed again, or not the one that changed")
	}
	x.apply(&cluster.ServiceDelta{Services: []cluster.Change[cluster.Service]{{Old: snap.Services[0]}}})
	if held(1) == second {
		t.Error("the next one that wants the fronts was not computed again")
	}
}

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"unsafe"
)

// fieldsOf returns the names of the fields of T, sorted.
func fieldsOf[T any]() (list []string) {
	for f := range reflect.TypeFor[T]().Fields() {
		list = append(list, f.Name)
	}
	slices.Sort(list)
	return list
}

// seesEveryField checks that a change of any field of T is a difference. The changes are of all
// fields but the ignored ones.
func seesEveryField[T, V any](t *testing.T, base func() V, equal func(a, b V) bool, changes map[string]func(V),
	ignored ...string) {
	t.Helper()
	var none V
	if !equal(base(), base()) || equal(base(), none) || equal(none, base()) || !equal(none, none) {
		t.Errorf("%T: equal values are not equal, or nothing equals something", none)
	}
	for name, change := range changes {
		v := base()
		change(v)
		if equal(v, base()) || equal(base(), v) {
			t.Errorf("%T: a value with another %s is equal", v, name)
		}
	}
	known := slices.Sorted(slices.Values(append(sortedKeys(changes), ignored...)))
	if fields := fieldsOf[T](); !slices.Equal(fields, known) {
		t.Errorf("the fields are %v; the test knows %v", fields, known)
	}
}

func TestServicesAndSlicesAreComparedByEveryField(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	service := func() *Service {
		return &Service{Key: Key{"a", "b"}, ClusterIPs: []netip.Addr{addr}, Ports: []ServicePort{{Port: 80}},
			External: &External{Restricted: true}}
	}
	seesEveryField[Service](t, service, (*Service).Equal, map[string]func(*Service){
		"Key":              func(s *Service) { s.Key.Name = "c" },
		"Created":          func(s *Service) { s.Created = 1 },
		"ClusterIPs":       func(s *Service) { s.ClusterIPs = nil },
		"Ports":            func(s *Service) { s.Ports = []ServicePort{{Port: 80, NodePort: 1}} },
		"External":         func(s *Service) { s.External = nil },
		"Affinity":         func(s *Service) { s.Affinity = 1 },
		"InternalLocal":    func(s *Service) { s.InternalLocal = true },
		"Scheduler":        func(s *Service) { s.Scheduler = "lc" },
		"SchedulerOptions": func(s *Service) { s.SchedulerOptions = 1 },
	})
	external := func() *Service { return &Service{External: &External{}} }
	seesEveryField[External](t, external, (*Service).Equal, map[string]func(*Service){
		"IPs":             func(s *Service) { s.External.IPs = []netip.Addr{addr} },
		"LoadBalancerIPs": func(s *Service) { s.External.LoadBalancerIPs = []netip.Addr{addr} },
		"Restricted":      func(s *Service) { s.External.Restricted = true },
		"SourceRanges":    func(s *Service) { s.External.SourceRanges = []netip.Prefix{netip.PrefixFrom(addr, 32)} },
		"Local":           func(s *Service) { s.External.Local = true },
		"HealthPort":      func(s *Service) { s.External.HealthPort = 1 },
	})
	slice := func() *EndpointSlice {
		return &EndpointSlice{Key: Key{"a", "b"}, Service: "c", Ports: []EndpointPort{{Port: 80}},
			Endpoints: []Endpoint{{addr, &Placement{}}}}
	}
	seesEveryField[EndpointSlice](t, slice, (*EndpointSlice).Equal, map[string]func(*EndpointSlice){
		"Key":       func(s *EndpointSlice) { s.Key.Namespace = "c" },
		"Service":   func(s *EndpointSlice) { s.Service = "d" },
		"Ports":     func(s *EndpointSlice) { s.Ports[0].Name = "x" },
		"Endpoints": func(s *EndpointSlice) { s.Endpoints[0].Addr = addr.Next() },
	}, "Triggered")
	seesEveryField[Placement](t, slice, (*EndpointSlice).Equal, map[string]func(*EndpointSlice){
		"Node":        func(s *EndpointSlice) { s.Endpoints[0].Node = "n" },
		"NodeHints":   func(s *EndpointSlice) { s.Endpoints[0].NodeHints = []string{"n"} },
		"ZoneHints":   func(s *EndpointSlice) { s.Endpoints[0].ZoneHints = []string{"z"} },
		"Ready":       func(s *EndpointSlice) { s.Endpoints[0].Ready = true },
		"Serving":     func(s *EndpointSlice) { s.Endpoints[0].Serving = true },
		"Terminating": func(s *EndpointSlice) { s.Endpoints[0].Terminating = true },
	})
	seesEveryField[Node](t, func() *Node { return &Node{} }, (*Node).Equal, map[string]func(*Node){
		"Name":     func(n *Node) { n.Name = "n" },
		"Addrs":    func(n *Node) { n.Addrs = []netip.Addr{addr} },
		"Zone":     func(n *Node) { n.Zone = "z" },
		"PodCIDRs": func(n *Node) { n.PodCIDRs = []netip.Prefix{netip.PrefixFrom(addr, 24)} },
		"Leaving":  func(n *Node) { n.Leaving = true },
	})
}

// There may be 150,000 endpoints.
func TestAnEndpointIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Endpoint{}); size > 32 {
		t.Errorf("an endpoint takes %d bytes", size)
	}
}

// SPDX-License-Identifier: Apache-2.0

package service

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// A backend that terminates and serves keeps its clients, though it gets no new ones; one that does not serve,
// or that no slice names for this port, keeps none.
func TestABackendThatTerminatesServes(t *testing.T) {
	key, vip := cluster.Key{Namespace: "shop", Name: "dns"}, netip.MustParseAddr("10.96.0.10")
	port := cluster.ServicePort{Name: "dns", Protocol: cluster.UDP, Port: 53, NodePort: 30053}
	end := func(addr string, p cluster.Placement) cluster.Endpoint {
		return cluster.Endpoint{Addr: netip.MustParseAddr(addr), Placement: &p}
	}
	slice := &cluster.EndpointSlice{Key: cluster.Key{Namespace: "shop", Name: "dns-1"}, Service: "dns",
		Ports: []cluster.EndpointPort{{Name: "dns", Protocol: cluster.UDP, Port: 5353},
			{Name: "metrics", Protocol: cluster.TCP, Port: 9153}},
		Endpoints: []cluster.Endpoint{end("10.244.1.1", cluster.Placement{Ready: true, Serving: true}),
			end("10.244.1.2", cluster.Placement{Serving: true, Terminating: true}),
			end("10.244.1.3", cluster.Placement{Terminating: true})}}
	x := NewIndex(Settings{Node: "n1"})
	x.apply(&cluster.ServiceDelta{
		Services: []cluster.Change[cluster.Service]{{New: &cluster.Service{Key: key, ClusterIPs: []netip.Addr{vip},
			Ports: []cluster.ServicePort{port}, External: &cluster.External{}}}},
		Slices: []cluster.Change[cluster.EndpointSlice]{{New: slice}}})
	front := program.Front{Addr: vip, Protocol: inet.UDP, Port: 53}
	nodePort := program.Front{Protocol: inet.UDP, Port: 30053}
	for _, tt := range []struct {
		name  string
		front program.Front
		addr  string
		port  uint16
		want  bool
	}{
		{"ready", front, "10.244.1.1", 5353, true},
		{"terminating and serving", front, "10.244.1.2", 5353, true},
		{"terminating and serving, at the node port", nodePort, "10.244.1.2", 5353, true},
		{"terminating and not serving", front, "10.244.1.3", 5353, false},
		{"in no slice", front, "10.244.1.4", 5353, false},
		{"of another port", front, "10.244.1.2", 9153, false},
		{"of a front that no Service has", program.Front{Addr: vip, Protocol: inet.UDP, Port: 54}, "10.244.1.2", 5353,
			false},
	} {
		if got := x.Serves(tt.front, program.Backend{Addr: netip.MustParseAddr(tt.addr), Port: tt.port}); got != tt.want {
			t.Errorf("%s: serves %t, want %t", tt.name, got, tt.want)
		}
	}
}

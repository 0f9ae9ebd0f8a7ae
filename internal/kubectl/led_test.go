// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/lab/scenarios"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
)

// fatesOf are the verdicts of the oracle for packets that reach no endpoint.
var fatesOf = map[program.Fate]oracle.Verdict{program.Rejected: oracle.Reject, program.Dropped: oracle.Drop,
	program.NotOurs: oracle.NotOurs}

// A flow through a Service goes where the scenarios say, with the source that they say.
func TestFlowsThroughServicesAreThoseOfTheScenarios(t *testing.T) {
	w, list, err := scenarios.Read(os.DirFS("../../testdata/services"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[oracle.Verdict]int{}
	for _, s := range list {
		snap, _, err := w.Snapshot(s.Objects)
		if err != nil {
			t.Fatal(err)
		}
		sc := newScene(&cluster.Snapshot{Pods: snap.Pods}, snap.Nodes)
		sc.called = snap
		for _, p := range s.Packets {
			asked, err := w.Ask(p)
			if err != nil {
				t.Fatal(err)
			}
			protocol, _ := cluster.ParseProtocol(map[bool]string{true: "TCP", false: p.Protocol}[p.Protocol == ""])
			set := w.Settings(s, asked.Node)
			sc.serving = func(*cluster.Node) (service.Settings, bool) { return service.Settings(set), true }
			want := oracle.Judge(snap, set, oracle.Packet{Protocol: protocol, Src: asked.Src, Dst: asked.Dst, Port: p.Port,
				FromNode: asked.FromNode})
			c := call{from: explain.End{Addr: asked.Src}, by: sc.resolver(asked.Node.Name), to: netip.AddrPortFrom(asked.Dst, p.Port),
				front: complete.Front{Name: want.Service.String(), Protocol: protocol}}
			if asked.FromNode {
				c.from.Node = asked.Node.Name
			}
			some, fate, err := sc.lead(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			got := oracle.Answer{Verdict: fatesOf[fate], Sticky: p.Sticky}
			for _, l := range some {
				got.Verdict = oracle.Forward
				got.Backends = append(got.Backends, oracle.Backend{To: netip.AddrPortFrom(l.to.Addr, l.port), SourceKept: !l.masqueraded})
			}
			if seen[got.Verdict]++; w.Line(got) != p.Expected() {
				t.Errorf("%s, %s, %+v: got %s, want %s", s.File, s.Name, p, w.Line(got), p.Expected())
			}
		}
	}
	if min(seen[oracle.Forward], seen[oracle.Reject], seen[oracle.Drop], seen[oracle.NotOurs]) < 5 {
		t.Errorf("too few of a kind: %v", seen)
	}
}

// asking makes a scene with two nodes, a pod on each that serves, a client on the first, and one Service.
func asking(t *testing.T, v cluster.Service) *scene {
	t.Helper()
	addr := netip.MustParseAddr
	nodes := []*cluster.Node{{Name: "one", Addrs: []netip.Addr{addr("172.18.0.1")}},
		{Name: "two", Addrs: []netip.Addr{addr("172.18.0.2")}}}
	pod := func(name, node, at string) *cluster.Pod {
		return &cluster.Pod{Key: cluster.Key{Namespace: "default", Name: name}, Node: node, IPs: []netip.Addr{addr(at)}}
	}
	pods := []*cluster.Pod{pod("client", "one", "10.1.0.1"), pod("web-1", "one", "10.1.0.2"), pod("web-2", "two", "10.2.0.2")}
	slice := &cluster.EndpointSlice{Key: cluster.Key{Namespace: "default", Name: "web-x"}, Service: "web",
		Ports: []cluster.EndpointPort{{Protocol: cluster.TCP, Port: 8080}}}
	for _, p := range pods[1:] {
		slice.Endpoints = append(slice.Endpoints, cluster.Endpoint{Addr: p.IPs[0],
			Placement: &cluster.Placement{Node: p.Node, Ready: true, Serving: true}})
	}
	v.Key = cluster.Key{Namespace: "default", Name: "web"}
	v.ClusterIPs = []netip.Addr{addr("10.96.0.1")}
	v.Ports = []cluster.ServicePort{{Protocol: cluster.TCP, Port: 80, NodePort: 30080}}
	f := complete.Front{Name: "default/web", Front: netip.AddrPortFrom(v.ClusterIPs[0], 80), Protocol: cluster.TCP,
		NodePort: 30080, InternalLocalOnly: v.InternalLocal}
	if v.External != nil {
		f.LocalOnly, f.Others = v.External.Local, slices.Concat(v.External.IPs, v.External.LoadBalancerIPs)
	}
	sc := newScene(&cluster.Snapshot{Pods: pods}, nodes)
	sc.called = &cluster.ServiceSnapshot{Services: []*cluster.Service{&v}, Slices: []*cluster.EndpointSlice{slice},
		Nodes: nodes, Pods: pods}
	sc.fronts, sc.namespace = []complete.Front{f}, "default"
	return sc
}

// What the policies of both nodes see of a flow: the client's node before its address is replaced, the other after.
func TestWaysThroughServices(t *testing.T) {
	outside := netip.MustParseAddr("192.0.2.10")
	any := &cluster.External{IPs: []netip.Addr{outside}}
	local := &cluster.External{IPs: []netip.Addr{outside}, Local: true}
	narrow := &cluster.External{LoadBalancerIPs: []netip.Addr{outside}, Restricted: true,
		SourceRanges: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}
	for _, tt := range []struct {
		name     string
		service  cluster.Service
		src, dst string
		want     string
	}{
		{"a cluster address", cluster.Service{}, "client", "svc/web", "10.1.0.1>10.1.0.2, 10.1.0.1>10.2.0.2"},
		{"internal Local", cluster.Service{InternalLocal: true}, "client", "svc/web", "10.1.0.1>10.1.0.2"},
		{"internal Local, from a node", cluster.Service{InternalLocal: true}, "node/two", "svc/web", "172.18.0.2>10.2.0.2"},
		{"an external address", cluster.Service{External: any}, "client", "192.0.2.10:80",
			"10.1.0.1>10.1.0.2, 172.18.0.1>10.2.0.2"},
		{"an external address, Local", cluster.Service{External: local}, "client", "192.0.2.10:80",
			"10.1.0.1>10.1.0.2, 10.1.0.1>10.2.0.2"},
		{"an external address, from outside", cluster.Service{External: any}, "203.0.113.9", "192.0.2.10:80",
			"203.0.113.9>10.1.0.2, 203.0.113.9>10.2.0.2"},
		{"a node port", cluster.Service{External: any}, "203.0.113.9", "node/two:30080",
			"172.18.0.2>10.1.0.2 by 172.18.0.2:30080, 203.0.113.9>10.2.0.2 by 172.18.0.2:30080"},
		{"a node port, Local", cluster.Service{External: local}, "203.0.113.9", "node/two:30080",
			"203.0.113.9>10.2.0.2 by 172.18.0.2:30080"},
		{"a node port of the pod's own node, Local", cluster.Service{External: local}, "client", "node/one:30080",
			"10.1.0.1>10.1.0.2, 10.1.0.1>10.2.0.2"},
		{"a source range", cluster.Service{External: narrow}, "203.0.113.9", "192.0.2.10:80",
			"203.0.113.9>10.1.0.2, 203.0.113.9>10.2.0.2"},
		{"a source range, of others", cluster.Service{External: narrow}, "client", "192.0.2.10:80",
			"Service default/web port 80/tcp drops the packets of default/client at 192.0.2.10: loadBalancerSourceRanges"},
		{"the kubelet", cluster.Service{}, "kubelet", "svc/web", "172.18.0.1>10.1.0.2, 172.18.0.2>10.2.0.2"},
		{"an address that is the node's own",
			cluster.Service{External: &cluster.External{IPs: []netip.Addr{netip.MustParseAddr("172.18.0.1")}}},
			"client", "172.18.0.1:80", "10.1.0.1>10.1.0.2, 172.18.0.1>10.2.0.2"},
	} {
		ways, err := asking(t, tt.service).ways(t.Context(), tt.src, tt.dst, 0)
		var list []string
		for _, w := range ways {
			text := fmt.Sprintf("%s>%s", w.ingress.Src.Addr, w.ingress.Dst.Addr)
			if w.egress.Dst != w.ingress.Dst {
				text += fmt.Sprintf(" by %s:%d", w.egress.Dst.Addr, w.egress.Port)
			}
			list = append(list, text)
		}
		got := strings.Join(list, ", ")
		if err != nil {
			got = err.Error()
		}
		if got != tt.want && (err == nil || !strings.HasPrefix(got, tt.want)) {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// An external address that is a node's own is not the Service's where podwall serves: the node is asked.
func TestAnAddressThatPodwallDoesNotServe(t *testing.T) {
	sc := asking(t, cluster.Service{External: &cluster.External{IPs: []netip.Addr{netip.MustParseAddr("172.18.0.1")}}})
	sc.serving = func(n *cluster.Node) (service.Settings, bool) {
		return service.Settings{Node: n.Name}.On(n, n.Addrs, false), true
	}
	ways, err := sc.ways(t.Context(), "client", "172.18.0.1:80", 0)
	if err != nil || len(ways) != 1 || ways[0].ingress.Dst.Node != "one" {
		t.Errorf("ways %+v, %v", ways, err)
	}
}

// Of two Services with one external address the older has it.
func TestTheOlderServiceIsReached(t *testing.T) {
	at := netip.MustParseAddr("192.0.2.10")
	sc := asking(t, cluster.Service{External: &cluster.External{IPs: []netip.Addr{at}}, Created: 2})
	older := *sc.called.Services[0]
	older.Key.Name, older.ClusterIPs, older.Created = "older", []netip.Addr{netip.MustParseAddr("10.96.0.2")}, 1
	if _, err := sc.ways(t.Context(), "client", "192.0.2.10:80", 0); err != nil {
		t.Fatal(err)
	}
	sc.called.Services = append(sc.called.Services, &older)
	if ways, err := sc.ways(t.Context(), "client", "192.0.2.10:80", 0); !errors.Is(err, errNotServed) {
		t.Errorf("ways %+v, %v", ways, err)
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/lab/scenarios"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/oracle"
)

// acceptable makes of a random Service one that the API server takes and that has nothing in common with
// others: number says which.
func acceptable(s *corev1.Service, number int) {
	spec := &s.Spec
	s.Namespace, s.Name = "a", fmt.Sprint("s", number)
	for i, ip := range spec.ClusterIPs {
		if ip != corev1.ClusterIPNone {
			spec.ClusterIPs[i] = ofNumber(netip.MustParseAddr(ip).Is4(), "10.96.0.%d", "fd00:96::%d", number)
		}
	}
	if len(spec.Ports) > 1 && (spec.Ports[0].Name == spec.Ports[1].Name || spec.Ports[0].Port == spec.Ports[1].Port) {
		spec.Ports = spec.Ports[:1]
	}
	for i := range spec.Ports {
		if spec.Ports[i].NodePort > 0 {
			spec.Ports[i].NodePort = int32(30000 + number + 10*i)
		}
	}
	outer := func(text string) string {
		a, err := netip.ParseAddr(text)
		return ofNumber(err != nil || a.Is4(), "192.0.2.%d", "2001:db8::%d", number)
	}
	balanced := map[string]bool{}
	for i := range s.Status.LoadBalancer.Ingress {
		in := &s.Status.LoadBalancer.Ingress[i]
		in.IP = outer(in.IP)
		balanced[in.IP] = true
	}
	for i, ip := range spec.ExternalIPs {
		spec.ExternalIPs[i] = outer(ip)
	}
	// One address is one thing only, and ranges are for both families.
	spec.ExternalIPs = slices.DeleteFunc(spec.ExternalIPs, func(ip string) bool { return balanced[ip] })
	if n := len(s.Status.LoadBalancer.Ingress); n > 1 {
		s.Status.LoadBalancer.Ingress = s.Status.LoadBalancer.Ingress[:1]
	}
	if len(spec.LoadBalancerSourceRanges) > 0 {
		spec.LoadBalancerSourceRanges = append(spec.LoadBalancerSourceRanges, "203.0.113.0/25", "2001:db8:9::/48")
	}
	spec.HealthCheckNodePort = 0 // kube-proxy would listen
}

func ofNumber(v4 bool, four, six string, number int) string {
	if v4 {
		return fmt.Sprintf(four, number)
	}
	return fmt.Sprintf(six, number)
}

// acceptableSlice makes of a random slice that of a family of a Service, with each endpoint once.
func acceptableSlice(s *discoveryv1.EndpointSlice, number int) {
	s.Namespace, s.Name = "a", fmt.Sprintf("s%d-%s", number, s.AddressType)
	s.Labels = map[string]string{discoveryv1.LabelServiceName: fmt.Sprint("s", number)}
	seen := map[string]bool{}
	s.Endpoints = slices.DeleteFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool {
		twice := seen[e.Addresses[0]]
		seen[e.Addresses[0]] = true
		return twice
	})
}

// randomObjects returns Services with their slices, as values and as manifests.
func randomObjects(t *rapid.T) (*cluster.ServiceSnapshot, []json.RawMessage) {
	snap, raw := &cluster.ServiceSnapshot{}, []json.RawMessage(nil)
	add := func(kind string, o any) {
		text, err := json.Marshal(o)
		check(t, err)
		raw = append(raw, append([]byte(`{"kind": "`+kind+`", `), text[1:]...))
	}
	for number := 1; number <= 3; number++ {
		s := gen.Service(t)
		acceptable(s, number)
		if v, _ := convert.Service(s); v != nil {
			snap.Services = append(snap.Services, v)
		}
		add("Service", s)
		families := map[discoveryv1.AddressType]bool{}
		for range rapid.SampledFrom([]int{3, 2, 1, 0}).Draw(t, "slices") {
			e := gen.Slice(t)
			if families[e.AddressType] {
				continue // kube-proxy believes one of two slices with one endpoint
			}
			families[e.AddressType] = true
			acceptableSlice(e, number)
			v, _ := convert.EndpointSlice(e)
			snap.Slices = append(snap.Slices, v)
			add("EndpointSlice", e)
		}
	}
	return snap, raw
}

// TestRandomPacketsBesideKubeProxy asks the real kube-proxy for random clusters, as far as it should do what
// we do.
func TestRandomPacketsBesideKubeProxy(t *testing.T) {
	kubeProxyProgram(t)
	w := &scenarios.World{ServiceRanges: []netip.Prefix{gen.ServiceRange(true), gen.ServiceRange(false)}}
	at := &scenarios.Node{Host: scenarios.Host{Name: "one", IPs: []netip.Addr{gen.NodeAddr("one", true),
		gen.NodeAddr("one", false)}}, Zone: "zone-one"}
	p := startKubeProxy(t, w, at, fmt.Sprintf("%s,%s", gen.PodRange(true, false), gen.PodRange(false, false)), false)
	set := oracle.Settings{Node: "one", OwnAddresses: at.IPs, NodePortAddresses: at.IPs, ServiceRanges: w.ServiceRanges,
		ClusterPods: []netip.Prefix{gen.PodRange(true, false), gen.PodRange(false, false)},
		NodePods:    []netip.Prefix{gen.PodRange(true, true), gen.PodRange(false, true)}}
	p.await(t)
	met := map[oracle.Verdict]int{}
	rapid.Check(t, func(t *rapid.T) {
		snap, raw := randomObjects(t)
		snap.Nodes = []*cluster.Node{{Name: "one", Addrs: at.IPs, Zone: at.Zone}}
		p.node.become(t, at.IPs)
		p.set(t, w, at, raw)
		p.await(t)
		for i, q := range chosen(gen.Packets(t)) {
			want := oracle.Judge(snap, set, oracle.Packet(q))
			elsewhere := contains(set.ClusterPods, q.Src) && !contains(set.NodePods, q.Src) // inside for kube-proxy
			if elsewhere || want.Verdict != oracle.Forward && i%8 > 0 {
				continue
			}
			met[want.Verdict]++
			if got, ok := p.agreesInTime(t, w, at, raw, oracle.Packet(q), want); !ok {
				t.Fatalf("%+v: kube-proxy %+v, oracle %+v\n%s", q, got, want, raw)
			}
		}
	})
	t.Logf("packets by verdict: %v", met)
	if met[oracle.Forward] < 10 || met[oracle.Reject] < 10 || met[oracle.Drop] < 10 {
		t.Errorf("too few packets: %v", met)
	}
}

func contains(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

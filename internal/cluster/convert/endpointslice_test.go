// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
)

func readSlice(t *testing.T, text string) *discoveryv1.EndpointSlice {
	t.Helper()
	s := &discoveryv1.EndpointSlice{}
	if err := yaml.UnmarshalStrict([]byte(text), s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	s.Namespace, s.Name = "ns", "s-1"
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if _, set := s.Labels[discoveryv1.LabelServiceName]; !set {
		s.Labels[discoveryv1.LabelServiceName] = "s"
	}
	return s
}

func TestSlicesAreReduced(t *testing.T) {
	const up = `"Ready":true,"Serving":true`
	for _, tt := range []struct{ name, text, want, finding string }{
		{"no Service", `{metadata: {labels: {kubernetes.io/service-name: ""}}, addressType: IPv4}`, `null`, ""},
		{"another proxy's", `{metadata: {labels: {service.kubernetes.io/service-proxy-name: x}}, addressType: IPv4}`, `null`, ""},
		{"of a headless Service", `{metadata: {labels: {service.kubernetes.io/headless: ""}}, addressType: IPv4}`, `null`, ""},
		{"host names", `{addressType: FQDN, endpoints: [{addresses: [a.example]}]}`, `null`, `warning: EndpointSlice ns/s-1: addressType`},
		{"no type", `{endpoints: [{addresses: [10.0.0.1]}]}`, `null`, `error: EndpointSlice ns/s-1: addressType: unknown type ""`},
		{"conditions that are not set", `{addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}]}`,
			`{"Service":"s","Endpoints":[{"Addr":"10.0.0.1",` + up + `}]}`, ""},
		{"all conditions", `{addressType: IPv4, endpoints: [{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}]}`,
			`{"Service":"s","Endpoints":[{"Addr":"10.0.0.1","Serving":true,"Terminating":true}]}`, ""},
		{"node and hints", `{addressType: IPv6, endpoints: [{addresses: ["fd00::1"], nodeName: n1, hints: {forZones: [{name: z2}, {name: z1}], forNodes: [{name: n1}]}}]}`,
			`{"Service":"s","Endpoints":[{"Addr":"fd00::1","Node":"n1","NodeHints":["n1"],"ZoneHints":["z1","z2"],` + up + `}]}`, ""},
		{"more than one address", `{addressType: IPv4, endpoints: [{addresses: [10.0.0.1, 10.0.0.2]}]}`,
			`{"Service":"s","Endpoints":[{"Addr":"10.0.0.1",` + up + `}]}`, ""},
		{"no address", `{addressType: IPv4, endpoints: [{addresses: []}]}`, `{"Service":"s"}`, `endpoints[0].addresses: the endpoint has no address`},
		{"the other family", `{addressType: IPv4, endpoints: [{addresses: ["fd00::1"]}]}`, `{"Service":"s"}`,
			`error: EndpointSlice ns/s-1: endpoints[0].addresses[0]: "fd00::1" is of the other family`},
		{"ports", `{addressType: IPv4, ports: [{port: 80}, {name: dns, port: 53, protocol: UDP}]}`,
			`{"Service":"s","Ports":[{"Port":80,"Protocol":6},{"Name":"dns","Port":53,"Protocol":17}]}`, ""},
		{"all ports", `{addressType: IPv4, ports: [{name: a}]}`, `{"Service":"s"}`, `warning: EndpointSlice ns/s-1: ports[0].port`},
		{"port zero", `{addressType: IPv4, ports: [{port: 0}]}`, `{"Service":"s"}`, `ports[0].port: port 0`},
		{"no such protocol", `{addressType: IPv4, ports: [{port: 1, protocol: ICMP}]}`, `{"Service":"s"}`, `ports[0].protocol: unknown`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, found := EndpointSlice(readSlice(t, tt.text))
			if got, want := compact(t, v), compact(t, json.RawMessage(tt.want)); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if text := fmt.Sprint(found); (len(found) > 0) != (tt.finding != "") || !strings.Contains(text, tt.finding) {
				t.Errorf("found %s, want %q", text, tt.finding)
			}
		})
	}
}

func TestTheTimeOfTheTriggerIsRead(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "yesterday": 0, "2026-11-30T12:00:00.000000005Z": 1_796_040_000_000_000_005,
		"2026-11-30T13:00:00+01:00": 1_796_040_000_000_000_000, "0001-01-01T00:00:00Z": 0, "9999-01-01T00:00:00Z": 0,
	} {
		s := readSlice(t, `{addressType: IPv4}`)
		s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: text}
		if v, _ := EndpointSlice(s); v.Triggered != want {
			t.Errorf("%q is read as %d, want %d", text, v.Triggered, want)
		}
	}
}

func TestFindingsOfASliceAreCounted(t *testing.T) {
	s := readSlice(t, `{addressType: IPv4}`)
	s.Endpoints = make([]discoveryv1.Endpoint, maxFindings+5)
	if _, found := EndpointSlice(s); len(found) != maxFindings+1 || !strings.Contains(found[maxFindings].Message, "5 more") ||
		found[maxFindings].Field != "endpoints" {
		t.Errorf("found %v", found)
	}
}

func TestListsAreBounded(t *testing.T) {
	s := readService(t, `{spec: {clusterIP: 10.0.0.1, type: LoadBalancer}}`)
	e := readSlice(t, `{addressType: IPv4}`)
	for i := range int32(maxListed + 1) {
		a := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}).String()
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: 1 + i})
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, a)
		s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, a+"/32")
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
		e.Ports = append(e.Ports, discoveryv1.EndpointPort{Port: &s.Spec.Ports[i].Port})
	}
	v, found := Service(s)
	for name, n := range map[string]int{"ports": len(v.Ports), "external addresses": len(v.External.IPs),
		"addresses of the load balancer": len(v.External.LoadBalancerIPs), "ranges": len(v.External.SourceRanges)} {
		if n != maxListed {
			t.Errorf("%d %s", n, name)
		}
	}
	slice, more := EndpointSlice(e)
	if len(slice.Ports) != maxListed || len(found) != 4 || len(more) != 1 {
		t.Errorf("%d ports, found %v and %v", len(slice.Ports), found, more)
	}
}

// large returns a slice of 100 endpoints on as many nodes, as the controller writes it.
func large(t testing.TB, n int) *discoveryv1.EndpointSlice {
	t.Helper()
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	s.Namespace, s.Name = "ns", fmt.Sprint("service-", n)
	s.Labels = map[string]string{discoveryv1.LabelServiceName: "service"}
	for i := range 100 {
		node := fmt.Sprint("node-", i)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", n>>8, n&255, i)},
			NodeName: &node})
	}
	return s
}

// What endpoints have in common is shared, and sharing changes nothing.
func TestEndpointsSharePlacements(t *testing.T) {
	in := NewInterner()
	a, _ := in.EndpointSlice(large(t, 1))
	b, _ := in.EndpointSlice(large(t, 2))
	if a.Endpoints[7].Placement != b.Endpoints[7].Placement || a.Endpoints[7].Placement == a.Endpoints[8].Placement {
		t.Error("placements are not shared, or different ones are")
	}
	alone, _ := EndpointSlice(large(t, 1))
	if !a.Equal(alone) {
		t.Error("sharing changes the value")
	}
	in.Forget()
	if c, _ := in.EndpointSlice(large(t, 1)); c.Endpoints[7].Placement == a.Endpoints[7].Placement || !c.Equal(a) {
		t.Error("the tables were not dropped")
	}
	before := heap()
	list := make([]*cluster.EndpointSlice, 1000)
	for i := range list {
		list[i], _ = in.EndpointSlice(large(t, i))
	}
	perEndpoint := float64(heap()-before) / float64(len(list)*100)
	t.Logf("%.1f bytes an endpoint", perEndpoint)
	if perEndpoint > 40 {
		t.Errorf("an endpoint takes %.1f bytes", perEndpoint)
	}
	runtime.KeepAlive(list)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// FuzzServices checks that no Service and no slice makes the conversion panic, and that what comes
// out is what the proxy relies on.
func FuzzServices(f *testing.F) {
	f.Add(`{spec: {clusterIP: 10.0.0.1, ports: [{port: 80}, {port: 80}], externalIPs: ["::"], type: NodePort}}`,
		`{addressType: IPv4, ports: [{}], endpoints: [{addresses: [10.0.0.1]}, {addresses: ["::1"]}]}`)
	f.Add(`{spec: {clusterIPs: ["fd00::1", "fd00::2"], type: LoadBalancer, loadBalancerSourceRanges: [" 1/8"]}}`, `{}`)
	f.Fuzz(func(t *testing.T, service, slice string) {
		var s corev1.Service
		var e discoveryv1.EndpointSlice
		if yaml.Unmarshal([]byte(service), &s) != nil || yaml.Unmarshal([]byte(slice), &e) != nil {
			return
		}
		if v, _ := Service(&s); v != nil {
			checkService(t, v)
		}
		e.Labels = map[string]string{discoveryv1.LabelServiceName: "s"}
		if v, _ := EndpointSlice(&e); v != nil {
			for _, end := range v.Endpoints {
				if unusable(end.Addr) != "" || end.Placement == nil || end.Addr.Is4() != v.Endpoints[0].Addr.Is4() {
					t.Errorf("%s: endpoint %v", slice, end)
				}
			}
			for _, p := range v.Ports {
				if p.Port == 0 || p.Protocol.String() == "invalid" {
					t.Errorf("%s: port %v", slice, p)
				}
			}
		}
	})
}

func checkService(t *testing.T, v *cluster.Service) {
	t.Helper()
	fronts := slices.Clone(v.ClusterIPs)
	if n := len(v.ClusterIPs); n < 1 || n > 2 || n == 2 && v.ClusterIPs[0].Is4() == v.ClusterIPs[1].Is4() {
		t.Errorf("cluster addresses %v", v.ClusterIPs)
	}
	if v.External != nil {
		fronts = append(append(fronts, v.External.IPs...), v.External.LoadBalancerIPs...)
	}
	for _, a := range fronts {
		if !a.IsValid() || unusable(a) != "" || a.Is4In6() || a.Zone() != "" {
			t.Errorf("served at %s", a)
		}
	}
	for i, p := range v.Ports {
		if p.Port == 0 || p.Protocol.String() == "invalid" || v.External == nil && p.NodePort != 0 ||
			slices.ContainsFunc(v.Ports[:i], func(o cluster.ServicePort) bool {
				return o.Port == p.Port && o.Protocol == p.Protocol
			}) {
			t.Errorf("ports %v", v.Ports)
		}
	}
}

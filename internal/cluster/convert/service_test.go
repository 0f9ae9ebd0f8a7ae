// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func readService(t *testing.T, text string) *corev1.Service {
	t.Helper()
	s := &corev1.Service{}
	if err := yaml.UnmarshalStrict([]byte(text), s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	s.Namespace, s.Name = "ns", "s"
	return s
}

// reduction is a Service, the value that is left of it as JSON without zero values, and what is found.
type reduction struct{ name, text, want, finding string }

const (
	base = `clusterIPs: [10.0.0.1, "fd00::1"]`
	lb   = base + `, type: LoadBalancer, `
)

func internalReductions() []reduction {
	return []reduction{
		{"no cluster address", `spec: {}`, `null`, ""},
		{"headless", `spec: {clusterIP: None}`, `null`, ""},
		{"headless in the list", `spec: {clusterIPs: [None], externalIPs: [192.0.2.1]}`, `null`, ""},
		{"a name for another", `spec: {clusterIP: 10.0.0.1, type: ExternalName}`, `null`, ""},
		{"another's, without a value", `{metadata: {labels: {service.kubernetes.io/service-proxy-name: ""}}, spec: {` + base + `}}`,
			`null`, ""},
		{"labelled headless", `{metadata: {labels: {service.kubernetes.io/headless: ""}}, spec: {` + base + `}}`, `null`, ""},
		{"the old field alone", `spec: {clusterIP: 10.0.0.1}`, `{"ClusterIPs":["10.0.0.1"]}`, ""},
		{"both families", `spec: {` + base + `}`, `{"ClusterIPs":["10.0.0.1","fd00::1"]}`, ""},
		{"the time of creation", `{metadata: {creationTimestamp: "1970-01-01T00:01:00Z"}, spec: {clusterIP: 10.0.0.1}}`,
			`{"Created":60,"ClusterIPs":["10.0.0.1"]}`, ""},
		{"kube-router's local", `{metadata: {annotations: {kube-router.io/service.local: ""}}, spec: {clusterIP: 10.0.0.1, type: NodePort}}`,
			`{"ClusterIPs":["10.0.0.1"],"External":{"Local":true}}`, ""},
		{"kube-router's local, inside only", `{metadata: {annotations: {kube-router.io/service.local: ""}}, spec: {clusterIP: 10.0.0.1}}`,
			`{"ClusterIPs":["10.0.0.1"]}`, ""},
		{"kube-router's skiplbips", `{metadata: {annotations: {kube-router.io/service.skiplbips: ""}}, spec: {clusterIP: 10.0.0.1, ` +
			`type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}`, `{"ClusterIPs":["10.0.0.1"],"External":{}}`, ""},
		{"kube-router's scheduler", `{metadata: {annotations: {kube-router.io/service.scheduler: mh, ` +
			`kube-router.io/service.schedflags: "flag-1,flag-2"}},` +
			` spec: {clusterIP: 10.0.0.1}}`, `{"ClusterIPs":["10.0.0.1"],"Scheduler":"mh","SchedulerOptions":3}`, ""},
		{"kube-router's direct server return", `{metadata: {annotations: {kube-router.io/service.dsr: tunnel}}, spec: {clusterIP: 10.0.0.1}}`,
			`{"ClusterIPs":["10.0.0.1"]}`, `error: Service ns/s: metadata.annotations[kube-router.io/service.dsr]: direct server return`},
		{"leading zeros", `spec: {clusterIPs: [010.0.0.1, "fd00::1"]}`, `{"ClusterIPs":["fd00::1"]}`,
			`error: Service ns/s: spec.clusterIPs[0]: "010.0.0.1" is no address`},
		{"IPv4 written as IPv6", `spec: {clusterIPs: ["::ffff:10.0.0.1"]}`, `null`, `error: Service ns/s: spec.clusterIPs[0]`},
		{"twice one family", `spec: {clusterIPs: [10.0.0.1, 10.0.0.2]}`, `{"ClusterIPs":["10.0.0.1"]}`, `spec.clusterIPs[1]: 10.0.0.2 is a second`},
		{"ports", `spec: {clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP}], type: NodePort}`,
			`{"ClusterIPs":["10.0.0.1"],"External":{},"Ports":[{"Port":80,"NodePort":30080,"Protocol":6},` +
				`{"Name":"dns","Port":53,"Protocol":17}]}`, ""},
		{"a node port of a type without", `spec: {clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080}]}`,
			`{"ClusterIPs":["10.0.0.1"],"Ports":[{"Port":80,"Protocol":6}]}`, `warning: Service ns/s: spec.ports[0].nodePort`},
		{"no such port", `spec: {clusterIP: 10.0.0.1, ports: [{port: 65536}]}`, `{"ClusterIPs":["10.0.0.1"]}`,
			`spec.ports[0].port: port 65536`},
		{"port zero", `spec: {clusterIP: 10.0.0.1, ports: [{port: 0}]}`, `{"ClusterIPs":["10.0.0.1"]}`, `spec.ports[0].port: port 0`},
		{"no such node port", `spec: {type: NodePort, clusterIP: 10.0.0.1, ports: [{port: 1, nodePort: 70000}]}`,
			`{"ClusterIPs":["10.0.0.1"],"External":{},"Ports":[{"Port":1,"Protocol":6}]}`, `spec.ports[0].nodePort: port 70000`},
		{"no such protocol", `spec: {clusterIP: 10.0.0.1, ports: [{port: 1, protocol: tcp}]}`, `{"ClusterIPs":["10.0.0.1"]}`,
			`spec.ports[0].protocol: unknown protocol "tcp"`},
		{"a port twice", `spec: {clusterIP: 10.0.0.1, ports: [{port: 1, name: a}, {port: 1, name: b}]}`,
			`{"ClusterIPs":["10.0.0.1"],"Ports":[{"Name":"a","Port":1,"Protocol":6}]}`, `spec.ports[1]: TCP 1 is in the list already`},
		{"affinity", `spec: {clusterIP: 10.0.0.1, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}}`,
			`{"ClusterIPs":["10.0.0.1"],"Affinity":5}`, ""},
		{"affinity without its configuration", `spec: {clusterIP: 10.0.0.1, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {}}}`,
			`{"ClusterIPs":["10.0.0.1"],"Affinity":10800}`, ""},
		{"affinity for too long", `spec: {clusterIP: 10.0.0.1, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}}`,
			`{"ClusterIPs":["10.0.0.1"],"Affinity":10800}`, `spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401`},
		{"no affinity", `spec: {clusterIP: 10.0.0.1, sessionAffinity: None}`, `{"ClusterIPs":["10.0.0.1"]}`, ""},
		{"unknown affinity", `spec: {clusterIP: 10.0.0.1, sessionAffinity: Cookie}`, `{"ClusterIPs":["10.0.0.1"]}`,
			`spec.sessionAffinity: unknown affinity "Cookie"`},
		{"internal Local", `spec: {clusterIP: 10.0.0.1, internalTrafficPolicy: Local}`,
			`{"ClusterIPs":["10.0.0.1"],"InternalLocal":true}`, ""},
		{"an unknown internal policy", `spec: {clusterIP: 10.0.0.1, internalTrafficPolicy: Near}`,
			`{"ClusterIPs":["10.0.0.1"]}`, `error: Service ns/s: spec.internalTrafficPolicy: unknown policy "Near": read as Cluster`},
	}
}

func externalReductions() []reduction {
	return []reduction{
		{"an unknown external policy", `spec: {type: NodePort, clusterIP: 10.0.0.1, externalTrafficPolicy: local}`,
			`{"ClusterIPs":["10.0.0.1"],"External":{}}`, `spec.externalTrafficPolicy: unknown policy "local": read as Cluster`},
		{"external Local without anything external", `spec: {clusterIP: 10.0.0.1, externalTrafficPolicy: Local}`,
			`{"ClusterIPs":["10.0.0.1"]}`, ""},
		{"external addresses", `spec: {clusterIP: 10.0.0.1, externalTrafficPolicy: Local, externalIPs: [192.0.2.1, 192.0.2.1, 192.0.2.2]}`,
			`{"ClusterIPs":["10.0.0.1"],"External":{"IPs":["192.0.2.1","192.0.2.2"],"Local":true}}`, ""},
		{"an external address of no family of the Service", `spec: {clusterIP: 10.0.0.1, externalIPs: ["2001:db8::1"]}`,
			`{"ClusterIPs":["10.0.0.1"],"External":{}}`, `warning: Service ns/s: spec.externalIPs[0]: 2001:db8::1: the Service has no`},
		{"the load balancer", `{spec: {` + lb + `externalTrafficPolicy: Local, healthCheckNodePort: 30001}, ` +
			`status: {loadBalancer: {ingress: [{hostname: a}, {ip: 192.0.2.1}, {ip: "2001:db8::1", ipMode: VIP}, {ip: 192.0.2.2, ipMode: Proxy}]}}}`,
			`{"ClusterIPs":["10.0.0.1","fd00::1"],"External":{"HealthPort":30001,"LoadBalancerIPs":["192.0.2.1","2001:db8::1"],"Local":true}}`, ""},
		{"a mode that is not known", `{spec: {` + lb + `}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1, ipMode: DSR}]}}}`,
			`{"ClusterIPs":["10.0.0.1","fd00::1"],"External":{}}`, `status.loadBalancer.ingress[0].ipMode: unknown mode "DSR"`},
		{"a status of another type", `{spec: {clusterIP: 10.0.0.1, type: NodePort}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}`,
			`{"ClusterIPs":["10.0.0.1"],"External":{}}`, ""},
		{"a health port of policy Cluster", `spec: {` + lb + `healthCheckNodePort: 30001}`,
			`{"ClusterIPs":["10.0.0.1","fd00::1"],"External":{}}`, ""},
		{"source ranges", `spec: {` + lb + `loadBalancerSourceRanges: [" 192.0.2.0/24 ", "0.0.0.0/0"]}`,
			`{"ClusterIPs":["10.0.0.1","fd00::1"],"External":{"Restricted":true,"SourceRanges":["192.0.2.0/24","0.0.0.0/0"]}}`, ""},
		{"a range that is none admits nobody", `spec: {` + lb + `loadBalancerSourceRanges: ["192.0.2.0"]}`,
			`{"ClusterIPs":["10.0.0.1","fd00::1"],"External":{"Restricted":true}}`, `spec.loadBalancerSourceRanges[0]: "192.0.2.0" is no CIDR`},
		{"a range with zeros", `spec: {` + lb + `loadBalancerSourceRanges: ["010.0.0.1/8"]}`,
			`{"ClusterIPs":["10.0.0.1","fd00::1"],"External":{"Restricted":true,"SourceRanges":["10.0.0.0/8"]}}`, `warning: Service ns/s: spec.loadBalancerSourceRanges[0]`},
		{"ranges of one family only", `{spec: {` + lb + `loadBalancerSourceRanges: ["192.0.2.0/24"]}, status: {loadBalancer: {ingress: [{ip: "2001:db8::1"}]}}}`,
			`{"ClusterIPs":["10.0.0.1","fd00::1"],"External":{"LoadBalancerIPs":["2001:db8::1"],"Restricted":true,"SourceRanges":["192.0.2.0/24"]}}`,
			`no range has the family of 2001:db8::1: no client may use that address; add ranges of the family, or ::/0`},
	}
}

func TestServicesAreReduced(t *testing.T) {
	for _, tt := range append(internalReductions(), externalReductions()...) {
		t.Run(tt.name, func(t *testing.T) {
			v, found := Service(readService(t, tt.text))
			got := compact(t, v)
			if want := compact(t, json.RawMessage(tt.want)); got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
			if text := fmt.Sprint(found); (len(found) > 0) != (tt.finding != "") || !strings.Contains(text, tt.finding) {
				t.Errorf("found %s, want %q", text, tt.finding)
			}
			for _, d := range found {
				if d.Cure == "" {
					t.Errorf("no cure in %s", d)
				}
			}
		})
	}
}

// compact returns the JSON of a value without its key and without zero values.
func compact(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	if m, ok := tree.(map[string]any); ok {
		delete(m, "Key")
	}
	text, err = json.Marshal(lean(tree))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func lean(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			x = lean(x)
			if x == nil || x == false || x == "" || x == 0.0 || fmt.Sprint(x) == "[]" {
				delete(v, k)
			}
		}
	case []any:
		for i := range v {
			v[i] = lean(v[i])
		}
	}
	return v
}

// None of these addresses can lead to a Service or to an endpoint.
func TestAddressesThatNobodyMayUse(t *testing.T) {
	for _, text := range []string{"0.0.0.0", "0.1.2.3", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "169.254.1.1", "fe80::1",
		"255.255.255.255", "fe80::1%eth0", "10.0.0.1/32", "10.0.0.01", "::ffff:10.0.0.1", "", "a.example"} {
		s := readService(t, `spec: {clusterIPs: [10.0.0.1, "fd00::1"], externalIPs: [x]}`)
		s.Spec.ExternalIPs[0] = text
		v, found := Service(s)
		if v == nil || len(v.External.IPs) > 0 || len(found) != 1 || !isError(found[0]) {
			t.Errorf("%q: %+v, found %v", text, v, found)
		}
		slice := readSlice(t, `{addressType: IPv4, endpoints: [{addresses: [x]}, {addresses: [10.0.0.9]}]}`)
		slice.Endpoints[0].Addresses[0] = text
		e, found := EndpointSlice(slice)
		if e == nil || len(e.Endpoints) != 1 || len(found) != 1 || !isError(found[0]) {
			t.Errorf("%q: %+v, found %v", text, e, found)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

const (
	webService = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.1, " +
		"selector: {app: web}, ports: [{port: 80, targetPort: http}]}}"
	webPod = "{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop, labels: {app: web}}, spec: {nodeName: n1, " +
		"containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.0.0.1}]}}"
	webSlice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, " +
		"labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{port: 9090}], endpoints: [{addresses: [10.9.9.9]}]}"
)

// dump writes objects with all that pointers lead to.
func dump(t *testing.T, objects ...any) string {
	t.Helper()
	text, err := json.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func docs(texts ...string) string { return strings.Join(texts, "\n---\n") }

// servedText returns what is served as one line.
func servedText(s *cluster.ServiceSnapshot) string {
	var words []string
	for _, v := range s.Services {
		words = append(words, fmt.Sprint(v.Key, v.ClusterIPs, len(v.Ports)))
	}
	for _, v := range s.Slices {
		word := "of " + v.Parent().String()
		for _, p := range v.Ports {
			word += fmt.Sprint(":", p.Port)
		}
		for _, e := range v.Endpoints {
			word += fmt.Sprint("+", e.Addr)
			if !e.Ready {
				word += "(unready)"
			}
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestServedServices(t *testing.T) {
	in := func(text, old, now string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%s has no %s", text, old)
		}
		return strings.Replace(text, old, now, 1)
	}
	unready := in(webPod, "status: {", "status: {conditions: [{type: Ready, status: \"False\"}], ")
	for _, tt := range []struct{ name, text, want, finding string }{
		{"slices from pods", docs(webService, webPod), "shop/web [10.96.0.1] 1 of shop/web:8080+10.0.0.1", ""},
		{"a pod that is not ready", docs(webService, unready), "shop/web [10.96.0.1] 1 of shop/web:8080+10.0.0.1(unready)", ""},
		{"slices that are written", docs(webService, webPod, webSlice), "shop/web [10.96.0.1] 1 of shop/web:9090+10.9.9.9", ""},
		{"a slice of another Service", docs(webService, webPod, in(webSlice, "service-name: web", "service-name: db")),
			"shop/web [10.96.0.1] 1 of shop/db:9090+10.9.9.9 of shop/web:8080+10.0.0.1", ""},
		{"a headless Service", docs(in(webService, "10.96.0.1", "None"), webPod), "", ""},
		{"no address", docs(in(webService, "clusterIP: 10.96.0.1, ", ""), webPod), "",
			"error: Service shop/web: spec.clusterIP: the Service has no cluster address"},
		{"an address that is none", docs(in(webService, "10.96.0.1", "10.96.0.256"), webPod), "",
			`error: Service shop/web: spec.clusterIPs[0]: "10.96.0.256" is no address`},
		{"a misspelt field", docs(in(webService, "selector:", "loadBalancerSourceRange: [192.0.2.0/24], selector:"), webPod), "",
			"error: Service shop/web: spec.loadBalancerSourceRange: unknown field: the Service is not served (f:1); correct"},
		{"a misspelt spec", docs(in(webService, "spec:", "spce:"), webPod), "", "error: Service shop/web: spce: unknown field"},
		{"a misspelt field of a port", in(webService, "[{port: 80", "[{port: 81, nodePrt: 1}, {port: 80"), "shop/web [10.96.0.1] 1",
			"error: Service shop/web: spec.ports[0].nodePrt: unknown field: this port is not served (f:1); correct"},
		{"an unknown field of the metadata", docs(in(webService, "metadata: {", "metadata: {x: y, "), webPod),
			"shop/web [10.96.0.1] 1 of shop/web:8080+10.0.0.1", "warning: Service shop/web: metadata.x: unknown field, it is not used"},
		{"a misspelt field of an endpoint", docs(in(webSlice, "[{addresses", "[{addresses: [10.9.9.8], nodename: n}, {addresses")),
			"of shop/web:9090+10.9.9.9", "error: EndpointSlice shop/web-1: endpoints[0].nodename: unknown field: this endpoint is not served"},
		{"a misspelt field of a slice's port", docs(in(webSlice, "[{port: 9090", "[{port: 1, protocoll: UDP}, {port: 9090")),
			"of shop/web:9090+10.9.9.9", "error: EndpointSlice shop/web-1: ports[0].protocoll: unknown field: this port is not served"},
		{"a misspelt list of a slice", docs(in(webSlice, "endpoints:", "endpoint:")), "",
			"error: EndpointSlice shop/web-1: endpoint: unknown field: the slice is not served"},
		{"a broken slice keeps its Service from having others", docs(webService, webPod, in(webSlice, "endpoints:", "endpoint:")),
			"shop/web [10.96.0.1] 1", "error: EndpointSlice shop/web-1: endpoint: unknown field"},
		{"an unknown policy", docs(in(webService, "ports:", "internalTrafficPolicy: Nearest, ports:"), webPod),
			"shop/web [10.96.0.1] 1 of shop/web:8080+10.0.0.1", "error: Service shop/web: spec.internalTrafficPolicy: unknown policy"},
	} {
		r, err := Parse("f", []byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		before := dump(t, r.Services, r.Slices)
		s, found := r.Served()
		if dump(t, r.Services, r.Slices) != before {
			t.Errorf("%s: the objects were changed", tt.name)
		}
		if got := servedText(s); got != tt.want {
			t.Errorf("%s: served is %q, want %q", tt.name, got, tt.want)
		}
		if got := fmt.Sprint(found); len(found) > 1 || (len(found) == 1) != (tt.finding != "") || !strings.Contains(got, tt.finding) {
			t.Errorf("%s: found is %s, want %s", tt.name, got, tt.finding)
		}
	}
}

func TestAMisspeltSliceIsRefused(t *testing.T) {
	text := strings.Replace(webSlice, "EndpointSlice", "Endpointslice", 1)
	if _, err := Parse("f", []byte(text)); err == nil || !strings.Contains(err.Error(), "almost those of a kind that is used") {
		t.Errorf("got %v", err)
	}
}

// Whoever has no service proxy hears that slices are not used.
func TestSlicesThatNobodyUsesAreNamed(t *testing.T) {
	r, err := Parse("f", []byte(webSlice))
	if err != nil || len(r.Diagnostics) != 1 || !strings.Contains(r.Diagnostics[0].String(), "EndpointSlice is not used") {
		t.Errorf("found is %v, %v", r.Diagnostics, err)
	}
}

func TestServicesReachTheStoreWhenAsked(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", docs(webService, webPod, "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {typ: y}}"))
	for _, asked := range []bool{false, true} {
		store, source := cluster.NewStore(), New(dir, slog.New(slog.DiscardHandler))
		store.KeepServices()
		missing := "[services endpointslices]"
		if asked {
			source, missing = source.WithServices(), "[]"
		}
		if err := source.sync(store); err != nil {
			t.Fatal(err)
		}
		if got := servedText(store.ServiceSnapshot()); (got == "shop/web [10.96.0.1] 1 of shop/web:8080+10.0.0.1") != asked {
			t.Errorf("asked %t, the store has %q", asked, got)
		}
		if got := fmt.Sprint(store.MissingServices()); got != missing {
			t.Errorf("asked %t, missing are %s, want %s", asked, got, missing)
		}
		policies, services := store.Take().Diagnostics, store.TakeServices().Diagnostics
		if (len(policies) == 1) == asked || (len(services) == 1) != asked {
			t.Errorf("asked %t, found are %v and %v", asked, policies, services)
		}
	}
}

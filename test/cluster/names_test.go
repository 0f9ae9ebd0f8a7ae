// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	own "github.com/podwall/podwall/internal/lab/netns"
)

// A resolver of Go's library, as programs in pods have one, finds Services by their names.
func TestNamesOfServicesAreAnswered(t *testing.T) {
	ns, err := own.New()
	if err != nil {
		t.Skip(err) // outside CI, without the right
	}
	t.Cleanup(func() { _ = ns.Close() })
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "shop", Name: name} }
	yes, no := true, false
	client := fake.NewClientset(
		&corev1.Service{ObjectMeta: named("web"), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.10",
			ClusterIPs: []string{"10.96.0.10", "fd00:96::10"}}},
		&corev1.Service{ObjectMeta: named("other"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName,
			ExternalName: "web.shop.svc.cluster.local"}},
		&corev1.Service{ObjectMeta: named("circle"), Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName,
			ExternalName: "circle.shop.svc.cluster.local"}},
		&corev1.Service{ObjectMeta: named("db"), Spec: corev1.ServiceSpec{ClusterIP: "None",
			ClusterIPs: []string{"None"}}},
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-1",
			Labels: map[string]string{discoveryv1.LabelServiceName: "db"}}, Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.1.5"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}},
			{Addresses: []string{"10.244.1.6"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
			{Addresses: []string{"10.244.1.7"}}}})
	at := netip.MustParseAddr("127.0.0.1")
	n, err := startNames(ns, at, client)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ns.Dial(ctx, "udp", netip.AddrPortFrom(at, namesPort).String())
	}}
	for name, want := range map[string][]string{
		"web.shop.svc.cluster.local.":    {"10.96.0.10", "fd00:96::10"},
		"WEB.shop.svc.cluster.local.":    {"10.96.0.10", "fd00:96::10"},
		"other.shop.svc.cluster.local.":  {"10.96.0.10", "fd00:96::10"},
		"circle.shop.svc.cluster.local.": nil,
		"db.shop.svc.cluster.local.":     {"10.244.1.5", "10.244.1.7"},
		"none.shop.svc.cluster.local.":   nil,
		"web.bar.svc.cluster.local.":     nil,
		"shop.svc.cluster.local.":        nil,
		"example.org.":                   nil,
	} {
		got, err := resolver.LookupNetIP(t.Context(), "ip", name)
		slices.SortFunc(got, netip.Addr.Compare)
		var texts []string
		for _, a := range got {
			texts = append(texts, a.Unmap().String())
		}
		if fmt.Sprint(texts) != fmt.Sprint(want) || (err == nil) != (want != nil) {
			t.Errorf("%s: %v, %v, want %v", name, texts, err, want)
		}
	}
}

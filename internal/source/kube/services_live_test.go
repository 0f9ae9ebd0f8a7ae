// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kube

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

// The real API server: its rights, its selectors, and its protobuf.
func TestServicesOfARealAPIServer(t *testing.T) {
	a := newAuthors(t, "n1")
	services, endpoints, nodes := a.api.CoreV1().Services("shop"), a.api.DiscoveryV1().EndpointSlices("shop"), a.api.CoreV1().Nodes()
	for _, s := range []*corev1.Service{aService("web", ""), aService("none", "None"),
		labelled(aService("other", ""), "service.kubernetes.io/service-proxy-name")} {
		s.Spec.ClusterIPs = nil
		_, err := services.Create(t.Context(), s, metav1.CreateOptions{})
		a.must(err)
	}
	for _, s := range []*discoveryv1.EndpointSlice{aSlice("web-1", "10.0.0.1"),
		labelled(aSlice("none-1", "10.0.0.9"), "service.kubernetes.io/headless")} {
		_, err := endpoints.Create(t.Context(), s, metav1.CreateOptions{})
		a.must(err)
	}

	as := rest.CopyConfig(a.cfg)
	as.Impersonate.UserName = podwall
	store, source := cluster.NewStore(), New(as, slog.New(slog.DiscardHandler)).OnNode("n1").WithServices()
	store.KeepServices()
	run(t, source, store)
	a.await("the policies' first sync", func() bool { return len(store.Missing()) == 0 })
	for _, k := range []cluster.Kind{cluster.Services, cluster.EndpointSlices} {
		f := awaitFeed(t, source, k, "is refused", func(f feed.Feed) bool { return f.Cure != "" })
		if !strings.Contains(f.Cure, "resources: ["+k.String()+"]") {
			t.Errorf("the cure for %s is %q", k, f.Cure)
		}
	}
	a.grant("services", rbacv1.PolicyRule{APIGroups: []string{"", "discovery.k8s.io"}, Verbs: []string{"list", "watch"},
		Resources: []string{"services", "endpointslices"}})
	shows := func(want string) {
		t.Helper()
		text := ""
		for limit := time.Now().Add(time.Minute); text != want; time.Sleep(5 * time.Millisecond) {
			if text = inShop(store.ServiceSnapshot()); time.Now().After(limit) {
				t.Fatalf("the store holds %q, want %q", text, want)
			}
		}
	}
	shows("web web-1=10.0.0.1")
	store.TakeServices()

	at := time.Now().Add(-time.Second).UTC()
	slice, err := endpoints.Get(t.Context(), "web-1", metav1.GetOptions{})
	a.must(err)
	slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.0.0.2"},
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "web-0", Namespace: "shop"}})
	slice.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: at.Format(time.RFC3339Nano)}
	slice, err = endpoints.Update(t.Context(), slice, metav1.UpdateOptions{})
	a.must(err)
	shows("web web-1=10.0.0.1+10.0.0.2")
	if d := store.TakeServices(); len(d.Triggered) != 1 || d.Triggered[0] != at.UnixNano() {
		t.Errorf("the times are %v, want %d", d.Triggered, at.UnixNano())
	}
	_, err = endpoints.Update(t.Context(), labelled(slice, "service.kubernetes.io/service-proxy-name"), metav1.UpdateOptions{})
	a.must(err)
	a.must(services.Delete(t.Context(), "web", metav1.DeleteOptions{}))
	shows("")

	n, err := nodes.Get(t.Context(), "n1", metav1.GetOptions{})
	a.must(err)
	n.Labels = map[string]string{corev1.LabelTopologyZone: "z1"}
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.0.0.0/24", []string{"10.0.0.0/24", "fd00::/64"}
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "ToBeDeletedByClusterAutoscaler", Effect: corev1.TaintEffectNoSchedule})
	_, err = nodes.Update(t.Context(), n, metav1.UpdateOptions{})
	a.must(err)
	a.await("the Node", func() bool {
		n := store.Node("n1")
		return fmt.Sprint(n.Zone, n.PodCIDRs, n.Leaving) == "z1[10.0.0.0/24 fd00::/64] true"
	})
}

// inShop is what is served in the namespace; the server has a Service of its own in another.
func inShop(s *cluster.ServiceSnapshot) string {
	var words []string
	for _, v := range s.Services {
		if v.Key.Namespace == "shop" && len(v.ClusterIPs) == 1 {
			words = append(words, v.Key.Name)
		}
	}
	for _, v := range s.Slices {
		var ips []string
		for _, e := range v.Endpoints {
			ips = append(ips, e.Addr.String())
		}
		if v.Key.Namespace == "shop" {
			words = append(words, v.Key.Name+"="+strings.Join(ips, "+"))
		}
	}
	return strings.Join(words, " ")
}

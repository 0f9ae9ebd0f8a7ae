// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

func aService(name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Port: 80}}}}
}

func aSlice(name string, ips ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}}
	for _, ip := range ips {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}})
	}
	return s
}

// labelled returns an object with one label more.
func labelled[T metav1.Object](o T, label string) T {
	all := map[string]string{label: ""}
	for k, v := range o.GetLabels() {
		all[k] = v
	}
	o.SetLabels(all)
	return o
}

// serving returns a running source with Services, and the store that keeps them.
func serving(t *testing.T, s *apiServer, log *slog.Logger) (*cluster.Store, *Source) {
	t.Helper()
	store, source := cluster.NewStore(), New(s.cfg, log).WithServices()
	store.KeepServices()
	run(t, source, store)
	return store, source
}

func servicesText(store *cluster.Store) string {
	var words []string
	s := store.ServiceSnapshot()
	for _, v := range s.Services {
		words = append(words, fmt.Sprint(v.Key.Name, v.ClusterIPs))
	}
	for _, v := range s.Slices {
		word := v.Key.Name + "="
		for _, e := range v.Endpoints {
			word += "+" + e.Addr.String()
		}
		words = append(words, word)
	}
	for _, k := range store.MissingServices() {
		words = append(words, "-"+k.String())
	}
	return strings.Join(words, " ")
}

func awaitServices(t *testing.T, store *cluster.Store, want string) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		got := servicesText(store)
		if got == want {
			return
		}
		select {
		case <-store.ServicesChanged():
		case <-limit:
			t.Fatalf("the store holds %q, want %q", got, want)
		}
	}
}

func TestServicesAndSlicesAreFollowed(t *testing.T) {
	for _, noStream := range []bool{false, true} {
		s := newAPIServer(t)
		s.noStream = noStream
		other := labelled(aService("other", "10.96.0.9"), "service.kubernetes.io/service-proxy-name")
		s.put("services", aService("web", "10.96.0.1"), aService("none", "None"), other)
		s.put("endpointslices", aSlice("web-1", "10.0.0.1", "10.0.0.2"),
			labelled(aSlice("none-1", "10.0.0.9"), "service.kubernetes.io/headless"))
		store, source := serving(t, s, quietly())
		awaitServices(t, store, "web[10.96.0.1] web-1=+10.0.0.1+10.0.0.2")
		s.put("services", aService("db", "10.96.0.2"))
		s.put("endpointslices", aSlice("web-1", "10.0.0.1"), aSlice("web-2", "10.0.0.3"))
		awaitServices(t, store, "db[10.96.0.2] web[10.96.0.1] web-1=+10.0.0.1 web-2=+10.0.0.3")
		s.put("services", aService("web", "None")) // not served any more
		s.put("endpointslices", labelled(aSlice("web-2", "10.0.0.3"), "service.kubernetes.io/service-proxy-name"))
		awaitServices(t, store, "db[10.96.0.2] web-1=+10.0.0.1")
		s.setRefuse("services", http.StatusInternalServerError)
		s.hangUp()
		s.remove("services", aService("db", "10.96.0.2"))
		s.forget()
		s.setRefuse("services", 0)
		awaitServices(t, store, "web-1=+10.0.0.1")
		s.remove("endpointslices", aSlice("web-1"))
		awaitServices(t, store, "")
		if feeds := source.Feeds(); len(feeds) != 6 || feeds[4].Kind != "services" || feeds[5].Kind != "endpointslices" {
			t.Errorf("the feeds are %+v", feeds)
		}
		want := "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
		s.mu.Lock()
		if s.wants["services"] != want || s.wants["endpointslices"] != want || s.wants["pods"] != "" {
			t.Errorf("asked is for %q", s.wants)
		}
		s.mu.Unlock()
	}
}

// What the server sends beyond what was asked for is not taken either.
func TestWhatIsNotServedIsNotKept(t *testing.T) {
	s := newAPIServer(t)
	s.put("services", aService("none", "None"), aService("web", "10.96.0.1"))
	fqdn := aSlice("names")
	fqdn.AddressType = discoveryv1.AddressTypeFQDN
	s.put("endpointslices", fqdn, aSlice("web-1", "10.0.0.1"))
	store, _ := serving(t, s, quietly())
	awaitServices(t, store, "web[10.96.0.1] web-1=+10.0.0.1")
	if d := store.TakeServices(); len(d.Diagnostics) != 1 || d.Diagnostics[0].Object.Name != "names" {
		t.Errorf("found is %v", d.Diagnostics)
	}
}

func TestWithoutServicesTheyAreNotAskedFor(t *testing.T) {
	s := newAPIServer(t)
	s.put("services", aService("web", "10.96.0.1"))
	store, source := cluster.NewStore(), New(s.cfg, quietly())
	run(t, source, store)
	await(t, store, "")
	for _, k := range cluster.Kinds() {
		awaitFeed(t, source, k, "is connected", isConnected)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, asked := s.wants["services"]; asked || len(source.Feeds()) != 4 {
		t.Errorf("asked is for %v, the feeds are %v", s.wants, source.Feeds())
	}
}

// Policies do not wait for Services that may not be read, and the right is named.
func TestServicesThatMayNotBeReadStopNothingElse(t *testing.T) {
	s := newAPIServer(t)
	s.put("pods", pod("a", "10.0.0.1"))
	s.setRefuse("services", http.StatusForbidden)
	s.setRefuse("endpointslices", http.StatusForbidden)
	log := &logBuffer{}
	store, source := cluster.NewStore(), New(s.cfg, slog.New(slog.NewTextHandler(log, nil))).WithServices()
	store.KeepServices()
	refused := make(chan string, 100)
	source.CountErrors(func(reason string) {
		select {
		case refused <- reason:
		default:
		}
	})
	run(t, source, store)
	await(t, store, "a=10.0.0.1")
	awaitServices(t, store, "-services -endpointslices")
	for kind, group := range map[cluster.Kind]string{cluster.Services: `""`, cluster.EndpointSlices: "discovery.k8s.io"} {
		f := awaitFeed(t, source, kind, "has the cure", func(f feed.Feed) bool { return f.Cure != "" })
		want := fmt.Sprintf("apiGroups: [%s], resources: [%s], verbs: [list, watch]", group, kind)
		if f.Connected || !strings.Contains(f.Err, "not allowed to list and watch") || !strings.Contains(f.Cure, want) {
			t.Errorf("the %s are %+v", kind, f)
		}
	}
	if got := <-refused; got != "forbidden" {
		t.Errorf("counted is %q", got)
	}
	for len(store.Changed()) > 0 {
		<-store.Changed()
	}
	s.put("services", aService("web", "10.96.0.1"))
	s.setRefuse("services", 0)
	s.setRefuse("endpointslices", 0)
	awaitServices(t, store, "web[10.96.0.1]")
	if len(store.Changed()) > 0 {
		t.Error("Services wake whoever enforces policies")
	}
}

func TestDiagnosticsFollowTheirService(t *testing.T) {
	s := newAPIServer(t)
	broken := func(name string) *corev1.Service {
		v := aService(name, "10.96.0.1")
		v.Spec.SessionAffinity = "Sometimes"
		return v
	}
	s.put("services", broken("a"), broken("b"), broken("c"))
	store, _ := serving(t, s, quietly())
	found := func() string {
		var names []string
		for _, d := range store.TakeServices().Diagnostics {
			names = append(names, d.Object.Name)
		}
		return strings.Join(names, " ")
	}
	awaitServices(t, store, "a[10.96.0.1] b[10.96.0.1] c[10.96.0.1]")
	if got := found(); got != "a b c" {
		t.Errorf("at first there are diagnostics of %q", got)
	}
	s.put("services", aService("a", "10.96.0.2"))
	s.remove("services", broken("b"))
	awaitServices(t, store, "a[10.96.0.2] c[10.96.0.1]")
	if got := found(); got != "c" {
		t.Errorf("after the changes there are diagnostics of %q", got)
	}
	s.setRefuse("services", http.StatusInternalServerError)
	s.hangUp()
	s.remove("services", broken("c"))
	s.forget()
	s.setRefuse("services", 0)
	awaitServices(t, store, "a[10.96.0.2]")
	if got := found(); got != "" || len(store.Take().Diagnostics) > 0 {
		t.Errorf("after the new list there are diagnostics of %q", got)
	}
}

func TestTheTimeOfAChangeOfEndpointsIsTold(t *testing.T) {
	s := newAPIServer(t)
	s.put("endpointslices", aSlice("web-1", "10.0.0.1"))
	store, _ := serving(t, s, quietly())
	awaitServices(t, store, "web-1=+10.0.0.1")
	store.TakeServices()
	at := time.Date(2026, 11, 30, 12, 0, 0, 5, time.UTC)
	next := aSlice("web-1", "10.0.0.2")
	next.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: at.Format(time.RFC3339Nano)}
	s.put("endpointslices", next)
	awaitServices(t, store, "web-1=+10.0.0.2")
	if d := store.TakeServices(); !slices.Equal(d.Triggered, []int64{at.UnixNano()}) {
		t.Errorf("the times are %v", d.Triggered)
	}
}

// TestSlicesAreNotKept: an endpoint is two hundred bytes on the wire, and what names its pod may not
// stay. The addresses of pods are in the store already and take nothing more.
func TestSlicesAreNotKept(t *testing.T) {
	const count, each, limit = 500, 100, 60
	s := newAPIServer(t)
	for i := range count {
		v := aSlice(fmt.Sprintf("web-%03d", i))
		v.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: strings.Repeat("m", 2000)}}
		for j := range each {
			node := fmt.Sprintf("node-%02d", j)
			v.Endpoints = append(v.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j)},
				NodeName: &node, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop",
					Name: fmt.Sprintf("web-%d-%d", i, j), UID: "01234567-89ab-cdef-0123-456789abcdef"}})
		}
		s.put("endpointslices", v)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	store, _ := serving(t, s, quietly())
	for limitAt := time.After(time.Minute); len(store.MissingServices()) > 0; {
		select {
		case <-store.ServicesChanged():
		case <-limitAt:
			t.Fatal("the list does not arrive")
		}
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	size := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / count / each
	t.Logf("%d bytes an endpoint, connections included", size)
	if size > limit {
		t.Errorf("an endpoint keeps %d bytes", size)
	}
}

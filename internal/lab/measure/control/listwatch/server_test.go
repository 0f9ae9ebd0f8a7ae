// SPDX-License-Identifier: Apache-2.0

package listwatch_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/measure/control/listwatch"
	"github.com/podwall/podwall/internal/source/kube"
)

// serve starts a server with some objects and returns how to reach it.
func serve(t *testing.T, pods int) (*listwatch.Server, *rest.Config) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := listwatch.New()
	serving, err := s.Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := serving.Close(); err != nil {
			t.Error(err)
		}
	})
	put(t, s, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	put(t, s, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}})
	put(t, s, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "closed"}})
	for i := range pods {
		put(t, s, pod(i))
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, []byte(serving.Kubeconfig), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := kube.LoadConfig(file, "")
	if err != nil {
		t.Fatal(err)
	}
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	return s, cfg
}

func put(t *testing.T, s *listwatch.Server, o listwatch.Object) {
	t.Helper()
	if _, err := s.Put(o); err != nil {
		t.Fatal(err)
	}
}

func pod(i int) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p" + strconv.Itoa(i), UID: "u"},
		Spec: corev1.PodSpec{NodeName: "node1"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.0.0." + strconv.Itoa(i+1)}}}}
}

// The agent's own source must end up with the same objects, whatever comes while
// it reads.
func TestTheAgentsSourceFollows(t *testing.T) {
	s, cfg := serve(t, 20)
	store := cluster.NewStore()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- kube.New(cfg, slog.New(slog.DiscardHandler)).Run(ctx, store) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	await(t, store, func() bool { return len(store.Missing()) == 0 })
	put(t, s, pod(50))
	if _, err := s.Delete(pod(3)); err != nil {
		t.Fatal(err)
	}
	// Its events are all that says what is there.
	seen := map[string]bool{}
	await(t, store, func() bool {
		for _, c := range store.Take().Pods {
			switch {
			case c.New != nil:
				seen[c.New.Key.Name] = true
			case c.Old != nil:
				delete(seen, c.Old.Key.Name)
			}
		}
		return len(seen) == 20 && seen["p50"] && !seen["p3"]
	})
}

func TestTheAgentsSourceFollowsServices(t *testing.T) {
	s, cfg := serve(t, 1)
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}}
	slice := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}}
	put(t, s, service)
	store, source := cluster.NewStore(), kube.New(cfg, slog.New(slog.DiscardHandler)).WithServices()
	store.KeepServices()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, store) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	holds := func(services, slices int) {
		t.Helper()
		for limit := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			snap := store.ServiceSnapshot()
			if len(store.MissingServices()) == 0 && len(snap.Services) == services && len(snap.Slices) == slices {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("the store has %d Services and %d slices, want %d and %d", len(snap.Services), len(snap.Slices),
					services, slices)
			}
		}
	}
	holds(1, 0)
	put(t, s, slice)
	holds(1, 1)
	if _, err := s.Delete(service); err != nil {
		t.Fatal(err)
	}
	holds(0, 1)
	slice.Labels[corev1.IsHeadlessService] = ""
	if _, err := s.Put(slice); err == nil {
		t.Error("an object is stored that the selector spares")
	}
	service.Spec.ClusterIP = corev1.ClusterIPNone
	if _, err := s.Put(service); err == nil {
		t.Error("a headless Service is stored, which kube-proxy asks to be spared")
	}
}

func await(t *testing.T, store *cluster.Store, done func() bool) {
	t.Helper()
	limit := time.After(20 * time.Second)
	for !done() {
		select {
		case <-store.Changed():
		case <-limit:
			t.Fatal("the store did not get there in 20 s")
		}
	}
}

func TestAListComesInPages(t *testing.T) {
	_, cfg := serve(t, 25)
	client := kubernetes.NewForConfigOrDie(cfg)
	seen, pages := map[string]bool{}, 0
	for o := (metav1.ListOptions{Limit: 10}); ; pages++ {
		list, err := client.CoreV1().Pods("").List(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Items {
			seen[p.Name] = true
		}
		if o.Continue = list.Continue; o.Continue == "" {
			break
		}
	}
	if len(seen) != 25 || pages != 2 {
		t.Errorf("%d pods on %d further pages, want 25 on 2", len(seen), pages)
	}
}

func TestAWatchFromBeforeWhatIsRememberedIsRefused(t *testing.T) {
	s, cfg := serve(t, 3)
	client := kubernetes.NewForConfigOrDie(cfg)
	list, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, pod(9))
	w, err := client.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != "ADDED" || e.Object.(*corev1.Pod).Name != "p9" {
		t.Errorf("the watch began with %s %v, want p9 added", e.Type, e.Object)
	}
	w.Stop()
	s.Forget()
	_, err = client.CoreV1().Pods("").Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch from a forgotten revision: %v, want it expired", err)
	}
}

// The agent's source reads a policy again in this way.
func TestAnObjectOfANamespaceIsListedByItsName(t *testing.T) {
	_, cfg := serve(t, 3)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"closed": 1, "open": 0} {
		list, err := client.NetworkingV1().NetworkPolicies("shop").List(t.Context(),
			metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		if err != nil || len(list.Items) != want {
			t.Errorf("%s: %d objects, want %d: %v", name, len(list.Items), want, err)
		}
	}
}

func TestWhatIsNotServedIsRefused(t *testing.T) {
	tests := []struct {
		name, method, path string
		code               int
	}{
		{"another resource", "GET", "/api/v1/endpoints", 404},
		{"a write", "POST", "/api/v1/pods", 405},
		{"a selector", "GET", "/api/v1/pods?labelSelector=a%3Db", 400},
		{"a selector in a namespace", "GET", "/api/v1/namespaces/shop/pods?labelSelector=a%3Db", 404},
		{"a write in a namespace", "POST", "/api/v1/namespaces/shop/pods?fieldSelector=metadata.name%3Dp", 405},
		{"another kind in a namespace", "GET", "/api/v1/namespaces/shop/endpoints?fieldSelector=metadata.name%3Dp", 404},
		{"another selector for Services", "GET", "/api/v1/services?labelSelector=!a", 400},
		{"kube-proxy's selectors", "GET",
			"/api/v1/services?labelSelector=!service.kubernetes.io/service-proxy-name&fieldSelector=spec.clusterIP!%3DNone", 200},
		{"another field of Services", "GET", "/api/v1/services?fieldSelector=spec.type%3DNodePort", 400},
		{"the only node", "GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dnode1", 200},
		{"a bad page", "GET", "/api/v1/pods?continue=!", 400},
		{"an object that is not there", "GET", "/api/v1/nodes/nobody", 404},
		{"a watch from nowhere", "GET", "/api/v1/pods?watch=true", 422},
		{"a streamed list without its terms", "GET", "/api/v1/pods?watch=true&sendInitialEvents=true", 422},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, http.NoBody)
			r.Header.Set("Accept", "application/vnd.kubernetes.protobuf")
			w := httptest.NewRecorder()
			listwatch.New().ServeHTTP(w, r)
			if w.Code != tt.code {
				t.Errorf("status %d, want %d: %s", w.Code, tt.code, w.Body)
			}
		})
	}
	_, err := listwatch.New().Delete(pod(1))
	if err == nil || errors.Unwrap(err) != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
}

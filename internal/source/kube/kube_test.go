// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pod(name, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "web"}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
}

func policy(name string, from ...networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: from}}},
	}
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start runs a source until the test ends.
func start(t *testing.T, s *apiServer) (*cluster.Store, *logBuffer) {
	t.Helper()
	store, log := cluster.NewStore(), &logBuffer{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(s.cfg, slog.New(slog.NewTextHandler(log, nil))).Run(ctx, store) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the source ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the source does not stop")
		}
	})
	return store, log
}

// await waits until the store's content reads as want (see text).
func await(t *testing.T, store *cluster.Store, want string) {
	t.Helper()
	limit := time.After(time.Minute)
	for {
		got := text(store)
		if got == want {
			return
		}
		select {
		case <-store.Changed():
		case <-limit:
			t.Fatalf("the store holds %q, want %q", got, want)
		}
	}
}

func text(store *cluster.Store) string {
	var words []string
	s := store.Snapshot()
	for _, n := range s.Namespaces {
		words = append(words, n.Name)
	}
	for _, p := range s.Pods {
		words = append(words, fmt.Sprintf("%s=%s", p.Key.Name, p.IPs[0]))
	}
	for _, p := range s.Policies {
		words = append(words, p.Key.Name)
	}
	for _, k := range store.Missing() {
		words = append(words, "-"+k.String())
	}
	return strings.Join(words, " ")
}

func TestSourceFollowsTheServer(t *testing.T) {
	for _, c := range []struct {
		name     string
		noStream bool
	}{{"with streamed lists", false}, {"with an older server that has none", true}} {
		t.Run(c.name, func(t *testing.T) {
			s := newAPIServer(t)
			s.noStream = c.noStream
			s.put("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
			s.put("pods", pod("a", "10.0.0.1"), pod("b", "10.0.0.2"))
			store, log := start(t, s)
			await(t, store, "shop a=10.0.0.1 b=10.0.0.2")
			s.put("networkpolicies", policy("deny"))
			await(t, store, "shop a=10.0.0.1 b=10.0.0.2 deny")
			s.put("pods", pod("b", "10.0.0.3"))
			s.remove("pods", pod("a", ""))
			await(t, store, "shop b=10.0.0.3 deny")
			s.remove("networkpolicies", policy("deny"))
			s.remove("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
			await(t, store, "b=10.0.0.3")
			if log.String() != "" {
				t.Errorf("nothing was wrong, yet it says %s", log)
			}
		})
	}
}

func TestNothingCountsAsSyncedBeforeItsFirstList(t *testing.T) {
	s := newAPIServer(t)
	s.setRefuse("pods", http.StatusForbidden)
	s.put("namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	store, log := start(t, s)
	await(t, store, "shop -pods")
	awaitLog(t, log, "not allowed to list and watch")
	s.setRefuse("pods", 0)
	await(t, store, "shop")
}

func TestChangesThatAWatchMissedArriveAfterANewList(t *testing.T) {
	s := newAPIServer(t)
	s.put("pods", pod("a", "10.0.0.1"), pod("b", "10.0.0.2"))
	store, _ := start(t, s)
	await(t, store, "a=10.0.0.1 b=10.0.0.2")
	store.Take()
	before := s.listed("pods")
	s.setRefuse("pods", http.StatusInternalServerError)
	s.hangUp()
	s.remove("pods", pod("a", ""))
	s.put("pods", pod("c", "10.0.0.3"))
	s.forget()
	s.setRefuse("pods", 0)
	await(t, store, "b=10.0.0.2 c=10.0.0.3")
	if s.listed("pods") == before {
		t.Error("the pods were not listed again")
	}
	for _, change := range store.Take().Pods {
		if key := cmpKey(change); key != "a" && key != "c" {
			t.Errorf("pod %s counts as changed", key)
		}
	}
}

func cmpKey(c cluster.Change[cluster.Pod]) string {
	if c.New != nil {
		return c.New.Key.Name
	}
	return c.Old.Key.Name
}

func TestAWatchThatEndsGoesOnWithoutANewList(t *testing.T) {
	s := newAPIServer(t)
	s.put("pods", pod("a", "10.0.0.1"))
	store, _ := start(t, s)
	await(t, store, "a=10.0.0.1")
	before := s.listed("pods")
	s.put("pods", pod("b", "10.0.0.2"))
	await(t, store, "a=10.0.0.1 b=10.0.0.2")
	s.hangUp()
	s.put("pods", pod("c", "10.0.0.3"))
	await(t, store, "a=10.0.0.1 b=10.0.0.2 c=10.0.0.3")
	if n := s.listed("pods"); n != before {
		t.Errorf("the pods were listed %d times more", n-before)
	}
}

func TestDiagnosticsFollowTheirPolicy(t *testing.T) {
	s := newAPIServer(t)
	empty := networkingv1.NetworkPolicyPeer{}
	s.put("networkpolicies", policy("a", empty), policy("b", empty), policy("c", empty))
	store, _ := start(t, s)
	await(t, store, "a b c")
	diagnostics := func() string {
		var names []string
		for _, d := range store.Take().Diagnostics {
			names = append(names, d.Object.Name)
		}
		return strings.Join(names, " ")
	}
	if got := diagnostics(); got != "a b c" {
		t.Errorf("at first there are diagnostics of %q", got)
	}
	s.put("networkpolicies", policy("a"))
	s.remove("networkpolicies", policy("b"))
	s.put("networkpolicies", policy("z"))
	await(t, store, "a c z")
	if got := diagnostics(); got != "c" {
		t.Errorf("after the changes there are diagnostics of %q", got)
	}
	s.setRefuse("networkpolicies", http.StatusInternalServerError)
	s.hangUp()
	s.remove("networkpolicies", policy("c"))
	s.forget()
	s.setRefuse("networkpolicies", 0)
	await(t, store, "a z")
	if got := diagnostics(); got != "" {
		t.Errorf("after the new list there are diagnostics of %q", got)
	}
}

func TestRequestsAskForProtobufAndNameUs(t *testing.T) {
	s := newAPIServer(t)
	store, _ := start(t, s)
	await(t, store, "")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.headers {
		if !strings.HasPrefix(h.Get("Accept"), "application/vnd.kubernetes.protobuf") || !strings.HasPrefix(h.Get("User-Agent"), "podwall-agent/") {
			t.Errorf("a request has the header %v", h)
		}
	}
}

// TestObjectsAreNotKept: each pod comes with 8 kB of annotations, and almost
// nothing of it may stay.
func TestObjectsAreNotKept(t *testing.T) {
	const count, limit = 2000, 1000
	s := newAPIServer(t)
	for i := range count {
		p := pod(fmt.Sprintf("p%04d", i), fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		p.Annotations = map[string]string{"note": strings.Repeat("x", 8000)}
		s.put("pods", p)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	store, _ := start(t, s)
	limitAt := time.After(60 * time.Second)
	for len(store.Missing()) > 0 {
		select {
		case <-store.Changed():
		case <-limitAt:
			t.Fatal("the list does not arrive")
		}
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / count
	t.Logf("%d bytes a pod, connections included", each)
	if each > limit {
		t.Errorf("a pod keeps %d bytes", each)
	}
}

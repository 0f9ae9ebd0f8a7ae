// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/podwall/podwall/internal/cluster"
)

// podStore is the storage of the pods, as the Reflector uses it.
func podStore(store *cluster.Store) storage {
	for _, w := range kinds(store, "") {
		if w.resource == "pods" {
			return w.store
		}
	}
	return nil
}

func endOfList() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}}
}

func TestAWatchGivesItsFirstListToTheStoreAndTheRestToTheReflector(t *testing.T) {
	store := cluster.NewStore()
	pods, inner := podStore(store), watch.NewFake()
	w := newStreamed(inner, pods.collector())
	defer w.Stop()
	inner.Add(pod("a", "10.0.0.1"))
	inner.Add(pod("b", "10.0.0.2"))
	inner.Add(pod("c", "10.0.0.3"))
	inner.Modify(pod("b", "10.0.0.4"))
	inner.Delete(pod("a", ""))
	go func() { // the next event waits until the Reflector took this one
		inner.Action(watch.Bookmark, endOfList())
		inner.Add(pod("d", "10.0.0.5"))
	}()
	if e := <-w.ResultChan(); e.Type != watch.Bookmark {
		t.Fatalf("the Reflector first sees %s, not the end of the list", e.Type)
	}
	if err := pods.Replace(nil, ""); err != nil {
		t.Fatal(err)
	}
	if got := text(store); got != "b=10.0.0.4 c=10.0.0.3 -namespaces -networkpolicies -nodes" {
		t.Errorf("after the list the store holds %s", got)
	}
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*corev1.Pod).Name != "d" {
		t.Errorf("after the list the Reflector sees %+v", e)
	}
}

func TestAListThatBrokeOffLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		next func(storage) []any // what Replace gets in the end
		want string
	}{
		{"before another watch", func(s storage) []any {
			inner := watch.NewFake()
			w := newStreamed(inner, s.collector())
			t.Cleanup(w.Stop)
			inner.Add(pod("b", "10.0.0.2"))
			go inner.Action(watch.Bookmark, endOfList())
			<-w.ResultChan()
			return nil
		}, "b=10.0.0.2"},
		{"before a list at once", func(s storage) []any {
			s.restart()
			return []any{pod("c", "10.0.0.3")}
		}, "c=10.0.0.3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := cluster.NewStore()
			pods, inner := podStore(store), watch.NewFake()
			w := newStreamed(inner, pods.collector())
			inner.Add(pod("a", "10.0.0.1"))
			w.Stop()
			if _, open := <-w.ResultChan(); open {
				t.Error("a watch that was stopped goes on")
			}
			if err := pods.Replace(c.next(pods), ""); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want+" -namespaces -networkpolicies -nodes", text(store)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Else client-go takes the watch for one that the server does not support.
func TestAReflectorHearsOfAListThatBrokeOff(t *testing.T) {
	inner := watch.NewFake()
	w := newStreamed(inner, podStore(cluster.NewStore()).collector())
	defer w.Stop()
	inner.Add(pod("a", "10.0.0.1"))
	inner.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Bookmark || len(e.Object.(*corev1.Pod).Annotations) > 0 {
		t.Errorf("the Reflector sees %+v", e)
	}
	if _, open := <-w.ResultChan(); open {
		t.Error("the watch goes on")
	}
}

func TestAWatchStopsWhileNobodyListens(t *testing.T) {
	inner := watch.NewFake()
	w := newStreamed(inner, podStore(cluster.NewStore()).collector())
	inner.Action(watch.Bookmark, endOfList())
	w.Stop()
	w.Stop()
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

func namespace(name, team string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
}

// What an informer says with a tombstone, a new list says here: whatever was
// deleted while no watch was open is gone, of every kind, and what came back
// under the same name is what it is now.
func TestWhatWasDeletedWhileNoWatchWasOpenIsGone(t *testing.T) {
	s := newAPIServer(t)
	s.put("namespaces", namespace("shop", "a"), namespace("stays", "a"), namespace("back", "a"))
	s.put("pods", pod("gone", "10.0.0.1"), pod("stays", "10.0.0.2"), pod("back", "10.0.0.3"))
	s.put("networkpolicies", policy("gone"), policy("stays"))
	store, _ := start(t, s)
	await(t, store, "back shop stays back=10.0.0.3 gone=10.0.0.1 stays=10.0.0.2 gone stays")
	store.Take()
	resources := []string{"namespaces", "pods", "networkpolicies"}
	for _, r := range resources {
		s.setRefuse(r, http.StatusInternalServerError)
	}
	s.hangUp()
	s.remove("namespaces", namespace("shop", ""))
	s.remove("namespaces", namespace("back", ""))
	s.put("namespaces", namespace("back", "b"))
	s.remove("pods", pod("gone", ""))
	s.remove("pods", pod("back", ""))
	s.put("pods", pod("back", "10.0.0.4"))
	s.remove("networkpolicies", policy("gone"))
	s.forget()
	for _, r := range resources {
		s.setRefuse(r, 0)
	}
	await(t, store, "back stays back=10.0.0.4 stays=10.0.0.2 stays")
	delta := store.Take()
	if got := len(delta.Namespaces) + len(delta.Pods) + len(delta.Policies); got != 5 {
		t.Errorf("%d objects changed, want the three that went and the two that came back: %+v", got, delta)
	}
	for _, c := range delta.Namespaces {
		if c.New != nil && c.New.Labels.Get("team") != "b" {
			t.Errorf("namespace %s has the labels %s of before", c.New.Name, c.New.Labels)
		}
	}
}

// The kinds that are read: Services and endpoints are not, so that none of their
// changes can change a verdict. Of Nodes it is the addresses that are read.
func TestNothingIsWatchedButWhatPoliciesSpeakAbout(t *testing.T) {
	var got []string
	for _, w := range kinds(cluster.NewStore(), "") {
		got = append(got, w.gv.String()+" "+w.resource)
	}
	want := []string{"v1 namespaces", "v1 pods", "networking.k8s.io/v1 networkpolicies", "v1 nodes"}
	if len(got) != len(want) {
		t.Fatalf("watched are %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("watched is %s, want %s", got[i], want[i])
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// large is a policy of so many blocks.
func large(name string, blocks int) *networkingv1.NetworkPolicy {
	var from []networkingv1.NetworkPolicyPeer
	for i := range blocks {
		from = append(from, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("20.%d.%d.0/24", i>>8, i&255)}})
	}
	return policy(name, from...)
}

// withRules returns the names of the policies that have rules.
func withRules(store *cluster.Store) (names string) {
	for _, p := range store.Snapshot().Policies {
		if len(p.Ingress) > 0 {
			names += p.Key.Name + " "
		}
	}
	return names
}

// What the budget of a namespace left out is read again when there is room, though
// no watch says anything of it.
func TestAPolicyThatWasLeftOutIsReadAgain(t *testing.T) {
	s := newAPIServer(t)
	each := cluster.MaxPolicyEntries - 100
	var last *networkingv1.NetworkPolicy
	for i := range cluster.MaxNamespaceEntries/each + 1 {
		last = large(fmt.Sprint("p", i), each+i) // the last one is the largest
		s.put("networkpolicies", last)
	}
	small := large("small", each-1)
	store, _ := start(t, s)
	until := func(what, want string) {
		t.Helper()
		for range 1_000 {
			if withRules(store) == want {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatalf("%s: %q have rules, want %q", what, withRules(store), want)
	}
	until("at first", "p0 p1 p2 p3 ")
	s.put("networkpolicies", small)
	until("with a smaller one", "p0 p1 p2 small ")
	s.remove("networkpolicies", small)
	until("without it", "p0 p1 p2 p3 ")
}

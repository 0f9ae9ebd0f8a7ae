// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// The store knows the version of lists, changes and bookmarks of policies; only what changes something makes
// a revision, and a list after the server's store was put back makes the version smaller.
func TestTheVersionOfPoliciesIsHeard(t *testing.T) {
	store := cluster.NewStore()
	s := newPolicySink(store)
	np := func(version, label string) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", ResourceVersion: version,
			Labels: map[string]string{"l": label}}}
	}
	for _, step := range []struct {
		what    string
		do      func() error
		version string
		changes bool
	}{
		{"a list", func() error { return s.Replace([]any{np("3", "")}, "5") }, "5", true},
		{"a label", func() error { return s.Update(np("6", "x")) }, "6", false},
		{"a bookmark", func() error { s.UpdateResourceVersion("9"); return nil }, "9", false},
		{"a deletion", func() error { return s.Delete(np("10", "x")) }, "10", true},
		{"a new one", func() error { return s.Add(np("11", "x")) }, "11", true},
		{"an older store", func() error { return s.Replace(nil, "4") }, "4", true},
	} {
		before := store.Take().Revision
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		_, same := store.PolicyVersion(before)
		if d := store.Take(); d.PolicyVersion != step.version || same == step.changes {
			t.Errorf("%s: version %q, want %q; nothing changed: %t", step.what, d.PolicyVersion, step.version, same)
		}
	}
	// Other kinds have no part in it.
	kinds(store, "")[0].store.(interface{ UpdateResourceVersion(string) }).UpdateResourceVersion("99")
	if d := store.Take(); d.PolicyVersion != "4" {
		t.Errorf("a bookmark of namespaces: %q", d.PolicyVersion)
	}
}

// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// isolated returns the names of the local pods that are isolated for ingress.
func (w *world) isolated() string {
	text := ""
	for _, l := range w.model().Layout.Workloads {
		if l.Ingress.Isolated {
			text += " " + l.Pod.Key.String()
		}
	}
	return text
}

// likeNew wants what a process that starts now would make of the cluster.
func (w *world) likeNew(t *testing.T) {
	t.Helper()
	want := compile.Program(policy.Resolve(w.store.Snapshot(), "one"), compile.Options{}).String()
	if diff := cmp.Diff(want, compile.Program(w.model(), compile.Options{}).String()); diff != "" {
		t.Errorf("program, from the snapshot (-), from the changes (+):\n%s", diff)
	}
}

// The objects of a namespace that is deleted may go in any order. As long as
// pod and policy are both there, the pod is isolated.
func TestANamespaceThatGoesBeforeItsObjectsOpensNobody(t *testing.T) {
	w := newWorld()
	w.set(w.namespace("shop", "team=a"), w.pod("shop/web", "one", "10.0.0.1", "app=web"),
		w.pod("shop/db", "two", "10.0.0.2", "app=db"))
	w.set(w.policy("shop/p", "app=web", "app=db"))
	for _, step := range []struct {
		name           string
		change         func(*cluster.Tx)
		isolated, peer string
	}{
		{"nothing", w.pod("shop/db", "two", "10.0.0.2", "app=db"), " shop/web", "10.0.0.2"},
		{"the namespace", w.noNamespace("shop"), " shop/web", "10.0.0.2"},
		{"the pod begins to go", w.terminating("shop/web", "one", "10.0.0.1", "app=web"), " shop/web", "10.0.0.2"},
		{"the peer", w.noPod("shop/db"), " shop/web", ""},
	} {
		w.set(step.change)
		if got := w.isolated(); got != step.isolated {
			t.Errorf("%s: isolated are%s, want%s", step.name, got, step.isolated)
		}
		if got := w.members(t); got != step.peer {
			t.Errorf("%s: members are %s, want %s", step.name, got, step.peer)
		}
		w.likeNew(t)
	}
	w.set(w.noPolicy("shop/p"))
	if got := w.isolated(); got != "" {
		t.Errorf("without the policy isolated are%s", got)
	}
	w.likeNew(t)
}

// A pod may lose its address before it goes: then it is in no set and no
// subject, and the sets go on following the others.
func TestAPodThatLosesItsAddressLeavesEverySet(t *testing.T) {
	w := newWorld()
	w.set(w.namespace("shop", ""), w.pod("shop/web", "one", "10.0.0.1", "app=web"),
		w.policy("shop/p", "app=web", "app=db"))
	for _, step := range []struct {
		name                    string
		change                  func(*cluster.Tx)
		want, isolatedPodsNamed string
	}{
		{"it has one", w.pod("shop/x", "two", "10.0.0.2", "app=db"), "10.0.0.2", " shop/web"},
		{"it loses it", w.pod("shop/x", "two", "", "app=db"), "", " shop/web"},
		{"another comes", w.pod("shop/y", "two", "10.0.0.3", "app=db"), "10.0.0.3", " shop/web"},
		{"another gets the old address", w.pod("shop/z", "two", "10.0.0.2", "app=no"), "10.0.0.3", " shop/web"},
		{"it gets a new one", w.pod("shop/x", "two", "10.0.0.4", "app=db"), "10.0.0.3 10.0.0.4", " shop/web"},
		{"a second subject comes", w.pod("shop/web2", "one", "10.0.0.5", "app=web"), "10.0.0.3 10.0.0.4",
			" shop/web shop/web2"},
		{"it loses its address", w.pod("shop/web2", "one", "", "app=web"), "10.0.0.3 10.0.0.4", " shop/web"},
	} {
		w.set(step.change)
		if got := w.members(t); got != step.want {
			t.Errorf("%s: members are %q, want %q", step.name, got, step.want)
		}
		if got := w.isolated(); got != step.isolatedPodsNamed {
			t.Errorf("%s: isolated are%s, want%s", step.name, got, step.isolatedPodsNamed)
		}
		w.likeNew(t)
	}
}

// named is a pod with a UID, as a StatefulSet makes them: the name comes back.
func named(name, uid, node, ip, text string) func(*cluster.Tx) {
	w := newWorld()
	w.set(w.pod(name, node, ip, text))
	p := *w.store.Snapshot().Pods[0]
	p.UID = uid
	return func(tx *cluster.Tx) { tx.SetPod(&p) }
}

// A name that comes back may be another pod: other address, other node, other
// labels. One that restarts in place is the same, and changes nothing.
func TestAPodThatComesBackUnderItsNameIsJudgedAsItIsNow(t *testing.T) {
	for _, tt := range []struct {
		name           string
		next           func(*cluster.Tx)
		peers, subject string
	}{
		{"in place", named("shop/db-0", "1", "two", "10.0.0.2", "app=db"), "10.0.0.2", " shop/web"},
		{"with other labels", named("shop/db-0", "1", "two", "10.0.0.2", "app=no"), "", " shop/web"},
		{"another UID alone", named("shop/db-0", "2", "two", "10.0.0.2", "app=db"), "10.0.0.2", " shop/web"},
		{"another address", named("shop/db-0", "2", "two", "10.0.0.3", "app=db"), "10.0.0.3", " shop/web"},
		{"another node", named("shop/db-0", "2", "one", "10.0.0.3", "app=db"), "10.0.0.3", " shop/web"},
		{"as a subject", named("shop/db-0", "2", "one", "10.0.0.3", "app=web"), "", " shop/db-0 shop/web"},
		{"without its labels", named("shop/db-0", "2", "two", "10.0.0.2", ""), "", " shop/web"},
	} {
		for _, way := range []string{"changed", "deleted and made in one change", "deleted, then made"} {
			t.Run(tt.name+", "+way, func(t *testing.T) {
				w := newWorld()
				w.set(w.namespace("shop", ""), w.pod("shop/web", "one", "10.0.0.1", "app=web"),
					w.policy("shop/p", "app=web", "app=db"))
				w.set(named("shop/db-0", "1", "two", "10.0.0.2", "app=db"))
				w.model()
				switch way {
				case "changed":
					w.set(tt.next)
				case "deleted, then made":
					w.set(w.noPod("shop/db-0"))
					w.model()
					w.set(tt.next)
				default:
					w.set(w.noPod("shop/db-0"), tt.next)
				}
				if got := w.members(t); got != tt.peers {
					t.Errorf("members are %q, want %q", got, tt.peers)
				}
				if got := w.isolated(); got != tt.subject {
					t.Errorf("isolated are%s, want%s", got, tt.subject)
				}
				w.likeNew(t)
			})
		}
	}
}

// Deleted under one name and made under another, all of it in one change.
func TestRenamedObjectsInOneChange(t *testing.T) {
	w := newWorld()
	w.set(w.namespace("shop", ""), w.namespace("old", "team=a"), w.pod("shop/web", "one", "10.0.0.1", "app=web"),
		w.pod("old/x", "two", "10.0.0.2", "app=db"), w.policy("shop/p", "app=web", "team=a/app=db"))
	if got := w.members(t); got != "10.0.0.2" {
		t.Fatalf("members are %q at first", got)
	}
	for _, step := range []struct {
		name     string
		changes  []func(*cluster.Tx)
		want     string
		isolated string
	}{
		{"the peer", []func(*cluster.Tx){w.noPod("old/x"), w.pod("old/y", "two", "10.0.0.2", "app=db")}, "10.0.0.2",
			" shop/web"},
		{"the policy", []func(*cluster.Tx){w.noPolicy("shop/p"), w.policy("shop/q", "app=web", "team=a/app=db")},
			"10.0.0.2", " shop/web"},
		{"the namespace", []func(*cluster.Tx){w.noNamespace("old"), w.noPod("old/y"), w.namespace("new", "team=a"),
			w.pod("new/y", "two", "10.0.0.2", "app=db")}, "10.0.0.2", " shop/web"},
		{"the subject", []func(*cluster.Tx){w.noPod("shop/web"), w.pod("shop/web2", "one", "10.0.0.1", "app=web")},
			"10.0.0.2", " shop/web2"},
		{"the names change places", []func(*cluster.Tx){w.pod("new/y", "two", "10.0.0.9", "app=no"),
			w.pod("new/z", "two", "10.0.0.2", "app=no"),
			w.pod("new/u", "two", "10.0.0.3", "app=db")}, "10.0.0.3", " shop/web2"},
	} {
		w.set(step.changes...)
		if got := w.members(t); got != step.want {
			t.Errorf("%s: members are %q, want %q", step.name, got, step.want)
		}
		if got := w.isolated(); got != step.isolated {
			t.Errorf("%s: isolated are%s, want%s", step.name, got, step.isolated)
		}
		w.likeNew(t)
	}
}

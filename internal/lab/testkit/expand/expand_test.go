// SPDX-License-Identifier: Apache-2.0

package expand

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
)

// history is a pod that moves its address to another, while its namespace is
// relabelled and a policy comes and goes.
func history() []*cluster.Snapshot {
	pod := func(name, ip, label string) *cluster.Pod {
		return &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, Node: "one",
			Labels: cluster.NewLabels(map[string]string{"app": label}), IPs: []netip.Addr{netip.MustParseAddr(ip)}}
	}
	shop := func(team string) *cluster.Namespace {
		return &cluster.Namespace{Name: "shop", Labels: cluster.NewLabels(map[string]string{"team": team})}
	}
	everything := cluster.Everything()
	deny := &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: "p"}, Subject: everything, IsolatesIngress: true,
		Ingress: []cluster.Rule{{Ports: cluster.Ports{Any: true}, Peers: cluster.Peers{List: []cluster.Peer{{Namespaces: &everything, Pods: everything}}}}}}
	return []*cluster.Snapshot{
		{Namespaces: []*cluster.Namespace{shop("a")}, Pods: []*cluster.Pod{pod("web", "10.0.0.1", "web"), pod("db", "10.0.0.2", "db")}},
		{Namespaces: []*cluster.Namespace{shop("b")}, Pods: []*cluster.Pod{pod("new", "10.0.0.1", "web")}, Policies: []*cluster.Policy{deny}},
		{Namespaces: []*cluster.Namespace{shop("b")}, Pods: []*cluster.Pod{pod("new", "10.0.0.1", "db"), pod("web", "10.0.0.3", "web")}},
	}
}

// text names the objects of a cluster with what changes in the history.
func text(s *cluster.Snapshot) string {
	var parts []string
	for _, n := range s.Namespaces {
		parts = append(parts, fmt.Sprintf("namespace %s %s", n.Name, n.Labels))
	}
	for _, p := range s.Pods {
		parts = append(parts, fmt.Sprintf("pod %s %v %s %t", p.Key, p.IPs, p.Labels, p.Finished))
	}
	for _, p := range s.Policies {
		parts = append(parts, "policy "+p.Key.String())
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// visited returns the clusters that a replay passes through.
func visited(r Replay) []string {
	store := cluster.NewStore()
	var list []string
	for _, s := range r.Steps {
		store.Update(func(tx *cluster.Tx) {
			for _, e := range s {
				e.apply(tx)
			}
		})
		list = append(list, text(store.Snapshot()))
	}
	return list
}

func TestEveryWayEndsWithItsLastCluster(t *testing.T) {
	names := map[string]bool{}
	for _, r := range Expand(history()) {
		t.Run(r.Name, func(t *testing.T) {
			if names[r.Name] {
				t.Errorf("two ways are called %s", r.Name)
			}
			names[r.Name] = true
			way := visited(r)
			if diff := cmp.Diff(text(r.Last), way[len(way)-1]); diff != "" {
				t.Errorf("last cluster (-want +got):\n%s", diff)
			}
			if r.Name == "squashed" {
				return
			}
			for i, s := range history() {
				if !slices.Contains(way, text(s)) {
					t.Errorf("state %d is not visited", i)
				}
			}
		})
	}
	if len(names) < 14 {
		t.Errorf("only %d ways", len(names))
	}
}

// What makes a way worth having is a moment that the history itself does not
// have.
func TestWaysPassThroughMomentsOfTheirOwn(t *testing.T) {
	tests := []struct {
		way    string
		moment func(*cluster.Snapshot) bool
	}{
		{"with empty states between", func(s *cluster.Snapshot) bool { return len(s.Pods) == 0 }},
		{"addresses swapped in between", sharedAddress},
		{"addresses reused in between", sharedAddress},
		{"one object at a time, namespaces, pods, policies, deletions last", sharedAddress},
		{"one object at a time, pods, namespaces, policies", func(s *cluster.Snapshot) bool { return len(s.Pods) > 0 && len(s.Namespaces) == 0 }},
		{"one object at a time, policies, pods, namespaces", func(s *cluster.Snapshot) bool { return len(s.Policies) > 0 && len(s.Pods) == 0 }},
		{"deleted and created again", func(s *cluster.Snapshot) bool { return len(s.Pods) > 0 && len(s.Namespaces) == 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.way, func(t *testing.T) {
			for _, r := range Expand(history()) {
				if r.Name == tt.way && !meets(r, tt.moment) {
					t.Error("the moment never comes")
				}
			}
			if slices.ContainsFunc(history(), tt.moment) {
				t.Error("the history has the moment itself")
			}
		})
	}
}

func sharedAddress(s *cluster.Snapshot) bool {
	claimed := map[netip.Addr]bool{}
	for _, p := range s.Pods {
		for _, a := range p.IPs {
			if claimed[a] {
				return true
			}
			claimed[a] = true
		}
	}
	return false
}

func meets(r Replay, moment func(*cluster.Snapshot) bool) bool {
	store := cluster.NewStore()
	met := false
	for _, s := range r.Steps {
		store.Update(func(tx *cluster.Tx) {
			for _, e := range s {
				e.apply(tx)
			}
		})
		met = met || moment(store.Snapshot())
	}
	return met
}

// Events that say nothing new must not even reach the index.
func TestWhatIsSaidAgainIsNoChange(t *testing.T) {
	store := cluster.NewStore()
	send := func(s Step) cluster.Delta {
		store.Update(func(tx *cluster.Tx) {
			for _, e := range s {
				e.apply(tx)
			}
		})
		return store.Take()
	}
	for i, s := range walk(history()) {
		send(s)
		for what, again := range map[string]Step{"the same events": s, "a new list": relist(history()[i])} {
			if d := send(again); len(d.Namespaces)+len(d.Pods)+len(d.Policies) > 0 {
				t.Errorf("state %d, %s: %+v", i, what, d)
			}
		}
	}
}

// Check is worth as much as what it sees.
func TestCheckSeesAWrongEnd(t *testing.T) {
	r := Expand(history())[0]
	if n := Check(t, r, "one"); n != 3 {
		t.Errorf("%d steps changed something, want 3", n)
	}
	wrong := history()
	wrong[2].Pods[0].IPs = []netip.Addr{netip.MustParseAddr("10.0.0.9")}
	r.Last = wrong[2]
	seen := &recorder{}
	Check(seen, r, "one")
	if !strings.Contains(seen.first, "at the end, program") {
		t.Errorf("first failure = %q", seen.first)
	}
}

type recorder struct{ first string }

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	if r.first == "" {
		r.first = fmt.Sprintf(format, args...)
	}
}

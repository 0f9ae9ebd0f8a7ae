// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// world is a cluster seen from node "one", written in short.
type world struct {
	store *cluster.Store
	index *policy.Index
}

func newWorld() *world {
	return &world{store: cluster.NewStore(), index: policy.NewIndex("one")}
}

func (w *world) set(changes ...func(*cluster.Tx)) {
	w.store.Update(func(tx *cluster.Tx) {
		for _, change := range changes {
			change(tx)
		}
	})
}

func (w *world) model() *policy.Model {
	w.index.Apply(w.store.Take())
	return w.index.Model()
}

// members returns the IPv4 addresses of the only set of the model.
func (w *world) members(t *testing.T) string {
	t.Helper()
	model := w.model()
	if len(model.Sets) != 1 {
		t.Fatalf("the model has %d sets, want 1", len(model.Sets))
	}
	var list []string
	for _, m := range model.Sets {
		for _, e := range inet.Sorted(m.V4) {
			list = append(list, e.Addr.String())
		}
	}
	return strings.Join(list, " ")
}

func (w *world) namespace(name, text string) func(*cluster.Tx) {
	return func(tx *cluster.Tx) { tx.SetNamespace(&cluster.Namespace{Name: name, Labels: labelsOf(text)}) }
}

func (w *world) noNamespace(name string) func(*cluster.Tx) {
	return func(tx *cluster.Tx) { tx.DeleteNamespace(name) }
}

func (w *world) pod(name, node, ip, text string) func(*cluster.Tx) {
	p := &cluster.Pod{Key: keyOf(name), Node: node, Labels: labelsOf(text)}
	if ip != "" {
		p.IPs = []netip.Addr{netip.MustParseAddr(ip)}
	}
	return func(tx *cluster.Tx) { tx.SetPod(p) }
}

func (w *world) noPod(name string) func(*cluster.Tx) {
	return func(tx *cluster.Tx) { tx.DeletePod(keyOf(name)) }
}

// policy isolates subject for ingress and lets in the pods of its namespace
// that peer matches; with a slash, pods of the namespaces before it.
func (w *world) policy(name, subject, peer string) func(*cluster.Tx) {
	p := &cluster.Policy{Key: keyOf(name), Subject: selectorOf(subject), IsolatesIngress: true}
	one := cluster.Peer{}
	if namespaces, pods, both := strings.Cut(peer, "/"); both {
		s := selectorOf(namespaces)
		one = cluster.Peer{Namespaces: &s, Pods: selectorOf(pods)}
	} else {
		one.Pods = selectorOf(peer)
	}
	p.Ingress = []cluster.Rule{{Peers: cluster.Peers{List: []cluster.Peer{one}}, Ports: cluster.Ports{Any: true}}}
	return func(tx *cluster.Tx) { tx.SetPolicy(p) }
}

func (w *world) noPolicy(name string) func(*cluster.Tx) {
	return func(tx *cluster.Tx) { tx.DeletePolicy(keyOf(name)) }
}

func (w *world) podWithPort(name, node, ip string, port uint16) func(*cluster.Tx) {
	return func(tx *cluster.Tx) {
		tx.SetPod(&cluster.Pod{Key: keyOf(name), Node: node, IPs: []netip.Addr{netip.MustParseAddr(ip)},
			Declared: &cluster.Declared{Ports: []cluster.NamedPort{{Name: "http", Protocol: cluster.TCP, Port: port}}}})
	}
}

// namedPortPolicy isolates every pod in one direction and allows one named
// port, for anybody.
func (w *world) namedPortPolicy(name, port string, ingress bool) func(*cluster.Tx) {
	rules := []cluster.Rule{{Peers: cluster.Peers{Any: true},
		Ports: cluster.Ports{List: []cluster.Port{{Protocol: cluster.TCP, Name: port}}}}}
	p := &cluster.Policy{Key: keyOf(name), Subject: cluster.Everything(), IsolatesIngress: ingress,
		IsolatesEgress: !ingress}
	if ingress {
		p.Ingress = rules
	} else {
		p.Egress = rules
	}
	return func(tx *cluster.Tx) { tx.SetPolicy(p) }
}

func portsOf(m policy.Members) string {
	var list []string
	for _, e := range inet.Sorted(m.V4) {
		list = append(list, netip.AddrPortFrom(e.Addr, e.Port).String())
	}
	return strings.Join(list, " ")
}

func keyOf(name string) cluster.Key {
	namespace, name, _ := strings.Cut(name, "/")
	return cluster.Key{Namespace: namespace, Name: name}
}

func labelsOf(text string) cluster.Labels {
	m := map[string]string{}
	for _, pair := range strings.Fields(text) {
		k, v, _ := strings.Cut(pair, "=")
		m[k] = v
	}
	return cluster.NewLabels(m)
}

func selectorOf(text string) cluster.Selector {
	s, err := labels.Parse(text)
	if err != nil {
		panic(err)
	}
	if s.Empty() {
		return cluster.Everything()
	}
	return cluster.NewSelector(s)
}

// Each row is a history; what counts is where it ends.
func TestMembersFollowTheClusterAsItIsNow(t *testing.T) {
	type step = func(*world) []func(*cluster.Tx)
	do := func(f ...func(w *world) func(*cluster.Tx)) step {
		return func(w *world) (list []func(*cluster.Tx)) {
			for _, g := range f {
				list = append(list, g(w))
			}
			return list
		}
	}
	pod := func(name, node, ip, text string) func(*world) func(*cluster.Tx) {
		return func(w *world) func(*cluster.Tx) { return w.pod(name, node, ip, text) }
	}
	gone := func(name string) func(*world) func(*cluster.Tx) {
		return func(w *world) func(*cluster.Tx) { return w.noPod(name) }
	}
	ns := func(name, text string) func(*world) func(*cluster.Tx) {
		return func(w *world) func(*cluster.Tx) { return w.namespace(name, text) }
	}
	noNS := func(name string) func(*world) func(*cluster.Tx) {
		return func(w *world) func(*cluster.Tx) { return w.noNamespace(name) }
	}
	tests := []struct {
		name  string
		peer  string
		steps []step
		want  string
	}{
		{"the namespace comes after its pods", "team=a/", []step{do(pod("db/x", "two", "10.0.0.2", "")),
			do(ns("db", "team=a"))}, "10.0.0.2"},
		{"a pod of an unknown namespace is in none", "/", []step{do(pod("db/x", "two", "10.0.0.2", ""))}, "10.0.0.1"},
		{"the namespace goes, the pod stays", "team=a/",
			[]step{do(ns("db", "team=a"), pod("db/x", "two", "10.0.0.2", "")), do(noNS("db"))}, ""},
		{"the namespace is relabelled", "team=a/", []step{do(ns("db", "team=b"), pod("db/x", "two", "10.0.0.2", "")),
			do(ns("db", "team=a"))}, "10.0.0.2"},
		{"the pod is relabelled", "app=db", []step{do(pod("shop/x", "two", "10.0.0.2", "app=db")),
			do(pod("shop/x", "two", "10.0.0.2", "app=x"))}, ""},
		{"the pod moves to another address", "app=db", []step{do(pod("shop/x", "two", "10.0.0.2", "app=db")),
			do(pod("shop/x", "two", "10.0.0.3", "app=db"))}, "10.0.0.3"},
		{"the address goes to another pod at once", "app=db", []step{do(pod("shop/x", "two", "10.0.0.2", "app=db")),
			do(gone("shop/x"), pod("shop/y", "two", "10.0.0.2", "app=no"))}, ""},
		{"two pods swap addresses", "app=db", []step{
			do(pod("shop/x", "two", "10.0.0.2", "app=db"), pod("shop/y", "two", "10.0.0.3", "app=no")),
			do(pod("shop/x", "two", "10.0.0.3", "app=db"), pod("shop/y", "two", "10.0.0.2", "app=no"))}, "10.0.0.3"},
		{"two pods have one address", "app=db", []step{do(pod("shop/x", "two", "10.0.0.2", "app=db"),
			pod("shop/y", "two", "10.0.0.2", "app=db")), do(gone("shop/x"))}, "10.0.0.2"},
		{"the last pod of an address goes", "app=db",
			[]step{do(pod("shop/x", "two", "10.0.0.2", "app=db"), pod("shop/y", "two", "10.0.0.2", "app=db")),
				do(gone("shop/x")), do(gone("shop/y"))}, ""},
		{"a pod of another namespace has the address too", "app=db",
			[]step{do(pod("shop/x", "two", "10.0.0.2", "app=db"), pod("db/x", "two", "10.0.0.2", "app=db")),
				do(gone("db/x"))}, "10.0.0.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.set(w.namespace("shop", ""), w.pod("shop/web", "one", "10.0.0.1", "app=web"),
				w.policy("shop/p", "app=web", tt.peer))
			w.model()
			for _, step := range tt.steps {
				w.set(step(w)...)
				w.model()
			}
			if diff := cmp.Diff(tt.want, w.members(t)); diff != "" {
				t.Errorf("members (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPolicyThatGoesAndComesBackIsTheSame(t *testing.T) {
	w := newWorld()
	w.set(w.namespace("shop", ""), w.pod("shop/web", "one", "10.0.0.1", "app=web"),
		w.policy("shop/p", "app=web", "app=db"))
	w.set(w.pod("shop/db", "two", "10.0.0.2", "app=db"))
	before := w.members(t)
	w.set(w.noPolicy("shop/p"))
	if sets := w.model().Sets; len(sets) != 0 {
		t.Fatalf("%d sets without a policy", len(sets))
	}
	w.set(w.pod("shop/db2", "two", "10.0.0.3", "app=db")) // while nobody asks
	w.set(w.policy("shop/p", "app=web", "app=db"))
	if got := w.members(t); got != before+" 10.0.0.3" {
		t.Errorf("members = %q, want %q and 10.0.0.3", got, before)
	}
}

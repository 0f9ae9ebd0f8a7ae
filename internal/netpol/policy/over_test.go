// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
)

func selecting(t *testing.T, text string) cluster.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.NewSelector(s)
}

// allowing returns a policy of every pod of "shop" that allows the selected pods.
func allowing(t *testing.T, name string, selectors ...string) *cluster.Policy {
	t.Helper()
	p := &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: name}, Subject: cluster.Everything(),
		IsolatesIngress: true,
		Ingress:         []cluster.Rule{{Ports: cluster.Ports{Any: true}}}}
	for _, text := range selectors {
		p.Ingress[0].Peers.List = append(p.Ingress[0].Peers.List, cluster.Peer{Pods: selecting(t, text)})
	}
	return p
}

// withAddresses returns a pod with up to 256 addresses of a network.
func withAddresses(name, node string, network, n int) *cluster.Pod {
	p := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, Node: node,
		Labels: cluster.NewLabels(map[string]string{"app": "x"})}
	for i := range n {
		p.IPs = append(p.IPs, netip.AddrFrom4([4]byte{10, byte(network >> 8), byte(network), byte(i)}))
	}
	return p
}

// The policies with the largest sets allow nothing, and isolate. A set that
// several policies share counts once.
func TestAboveTheBudgetTheLargestSetsGo(t *testing.T) {
	sizes := map[SetKey]int{}
	for text, n := range map[string]int{"app=small": 10, "app=shared": minElements / 2, "app=large": minElements} {
		sizes[NewSetSpec(false, 0, nil, Selection{Namespace: "shop", Pods: selecting(t, text)}).Key()] = n
	}
	size := func(k SetKey) int { return sizes[k] }
	policies := []*cluster.Policy{allowing(t, "a-large", "app=large"), allowing(t, "b-small", "app=small"),
		allowing(t, "c-shares", "app=shared"), allowing(t, "d-shares", "app=shared")}
	parts := map[string]*part{"shop": newPart([]*cluster.Pod{withAddresses("web", "one", 0, 1)}, policies,
		resolvePolicy)}
	if out := aboveBudget(parts, size, minElements/4); len(out) != 0 {
		t.Errorf("in a large cluster %d namespaces are above the budget", len(out))
	}
	out := aboveBudget(parts, size, 1)
	layout := join(parts, out)
	isolation := layout.Workloads[0].Ingress
	if !isolation.Isolated || len(isolation.Policies) != 4 {
		t.Fatalf("isolated: %t, by %d policies, want 4", isolation.Isolated, len(isolation.Policies))
	}
	for i, r := range isolation.Policies {
		if closed := len(r.Ingress)+len(r.Egress) == 0; r.Policy != policies[i] || closed != (i == 0) {
			t.Errorf("%v allows nothing: %t", r.Policy.Key, closed)
		}
	}
	if len(layout.Specs) != 2 {
		t.Errorf("%d sets, want the small and the shared one", len(layout.Specs))
	}
	if list := diagnostics(out, size); len(list) != 1 || list[0].Object.Name != "a-large" || list[0].Cure == "" {
		t.Errorf("diagnostics are %v", list)
	}
}

// Sets grow above the budget and below it again. What is left out follows from
// what there is, and so does what the index counts.
func TestTheIndexFollowsTheBudget(t *testing.T) {
	x, store := NewIndex("one"), cluster.NewStore()
	apply := func(f func(*cluster.Tx)) { store.Update(f); x.Apply(store.Take()) }
	apply(func(tx *cluster.Tx) {
		tx.SetPod(withAddresses("subject", "one", 1000, 1))
		for i := range minElements / 9 / 100 {
			tx.SetPod(withAddresses(fmt.Sprint("peer", i), "two", i, 100))
		}
		for i := range 9 { // nine sets of all pods: more than eight times the addresses
			tx.SetPolicy(allowing(t, fmt.Sprint(i), fmt.Sprintf("app in (x,y%d)", i)))
		}
	})
	more := withAddresses("more", "two", 1001, 100)
	for _, step := range []struct {
		name   string
		change func(*cluster.Tx)
		out    int
	}{
		{"within the budget", func(*cluster.Tx) {}, 0},
		{"above it", func(tx *cluster.Tx) { tx.SetPod(more) }, 1},
		{"within it again", func(tx *cluster.Tx) { tx.DeletePod(more.Key) }, 0},
		{"above it again", func(tx *cluster.Tx) { tx.SetPod(more) }, 1},
	} {
		apply(step.change)
		m := x.Model()
		addresses := 0 // all of them are in every set
		for _, p := range store.Snapshot().Pods {
			addresses += len(p.IPs)
		}
		if len(m.Diagnostics) != step.out || len(m.Sets) != 9-step.out {
			t.Errorf("%s: %d policies are left out, want %d, beside %d sets", step.name, len(m.Diagnostics), step.out,
				len(m.Sets))
		}
		for key, members := range m.Sets {
			if members.V4.Len() != addresses || x.size(key) != addresses {
				t.Errorf("%s: %d members, counted %d, want %d", step.name, members.V4.Len(), x.size(key), addresses)
			}
		}
		if x.addresses != addresses {
			t.Errorf("%s: %d addresses, want %d", step.name, x.addresses, addresses)
		}
	}
}

// A pod that several selectors of a set find counts once.
func TestAPodCountsOnceInASetOfManySelectors(t *testing.T) {
	x, store := NewIndex("one"), cluster.NewStore()
	var selectors []string
	for i := range maxSelectors + 1 {
		selectors = append(selectors, fmt.Sprintf("app in (x,y%d)", i))
	}
	store.Update(func(tx *cluster.Tx) {
		tx.SetPod(withAddresses("subject", "one", 1000, 1))
		tx.SetPod(withAddresses("peer", "two", 0, 3))
		tx.SetPolicy(allowing(t, "p", selectors...))
	})
	x.Apply(store.Take())
	m := x.Model()
	if len(m.Sets) != 1 {
		t.Fatalf("%d sets, want one", len(m.Sets))
	}
	for key, members := range m.Sets {
		if members.V4.Len() != 4 || x.size(key) != 4 {
			t.Errorf("%d members, counted %d, want 4", members.V4.Len(), x.size(key))
		}
	}
}

// A long list of selectors and names is searched by an index. Each of them counts,
// also where another one asks for the same label and does not match.
func TestEachOfManySelectorsAndNamesCounts(t *testing.T) {
	var list []Selection
	var names []string
	for i := range many + 2 {
		for _, text := range []string{fmt.Sprintf("app=x%d,tier=no", i), fmt.Sprintf("app=x%d", i)} {
			list = append(list, Selection{Namespace: "shop", Pods: selecting(t, text)})
		}
		names = append(names, fmt.Sprint("port", i))
	}
	addrs, ports := NewSetSpec(false, 0, nil, list[1:]...), NewSetSpec(false, cluster.TCP, names, list[1:]...)
	for i := range many + 3 {
		p := withAddresses("peer", "two", i, 1)
		p.Labels = cluster.NewLabels(map[string]string{"app": fmt.Sprint("x", i)})
		p.Declared = &cluster.Declared{Ports: []cluster.NamedPort{
			{Name: fmt.Sprint("port", i), Protocol: cluster.TCP, Port: 80},
			{Name: "other", Protocol: cluster.TCP, Port: 81}}}
		want := 1
		if i == many+2 {
			want = 0
		}
		if a, b := addrs.elements(nil, p, nil, p.IPs[0]), ports.elements(nil, p, nil, p.IPs[0]); len(a) != want ||
			len(b) != want {
			t.Errorf("pod %d is in the sets with %v and %v, want %d elements", i, a, b, want)
		}
	}
}

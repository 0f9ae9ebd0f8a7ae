// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/compile"
	"github.com/podwall/podwall/internal/policy"
)

// everyPod is a policy that lets in so many different selections of every pod.
func everyPod(name string, selections int) *cluster.Policy {
	p := &cluster.Policy{Key: keyOf(name), Subject: cluster.Everything(), IsolatesIngress: true}
	all := cluster.Everything()
	for i := range selections {
		peer := cluster.Peer{Namespaces: &all, Pods: selectorOf(fmt.Sprintf("app notin (%s-%d)", p.Key.Name, i))}
		p.Ingress = append(p.Ingress, cluster.Rule{Peers: cluster.Peers{List: []cluster.Peer{peer}}, Ports: cluster.Ports{Any: true}})
	}
	return p
}

// The members of the sets of a namespace are bounded. Above that the policies with
// the largest sets allow nothing, their pods stay isolated, and other namespaces are
// as they were; below it again everything is as it was. The incremental answer is
// the recomputed one.
func TestTheSetsOfANamespaceAreBounded(t *testing.T) {
	const pods = 1 << 11 // the budget is 1 << 18 members
	w := newWorld()
	for i := range pods {
		p := &cluster.Pod{Key: keyOf(fmt.Sprintf("many/p%d", i)), Node: "two", Labels: labelsOf("app=many"), IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})}}
		w.set(func(tx *cluster.Tx) { tx.SetPod(p) })
	}
	w.set(w.namespace("many", ""), w.namespace("shop", ""), w.namespace("other", ""),
		w.pod("shop/web", "one", "10.0.0.1", "app=web"), w.pod("other/web", "one", "10.0.0.2", "app=web"))
	set := func(p *cluster.Policy) { w.set(func(tx *cluster.Tx) { tx.SetPolicy(p) }) }
	set(everyPod("other/p", 2))
	set(everyPod("shop/small", 3))
	set(everyPod("shop/large", 120))

	check := func(when string, whole bool, sets int, closed string) {
		t.Helper()
		m := w.model()
		if len(m.Sets) != sets {
			t.Errorf("%s: %d sets, want %d", when, len(m.Sets), sets)
		}
		text := ""
		for _, d := range m.Diagnostics {
			text += d.Object.Name
			if d.Cure == "" || !strings.Contains(d.Message, "isolated") {
				t.Errorf("%s: diagnostic %s", when, d)
			}
		}
		if text != closed {
			t.Errorf("%s: %q are closed, want %q", when, text, closed)
		}
		for _, l := range m.Layout.Workloads {
			if !l.Ingress.Isolated {
				t.Errorf("%s: %s is open", when, l.Pod.Key)
			}
		}
		if !whole {
			return
		}
		reference := policy.Resolve(w.store.Snapshot(), "one")
		if got, want := compile.Program(m, compile.Options{}).String(), compile.Program(reference, compile.Options{}).String(); got != want {
			t.Errorf("%s: the incremental program is not the recomputed one", when)
		}
		if got, want := fmt.Sprint(m.Diagnostics), fmt.Sprint(reference.Diagnostics); got != want {
			t.Errorf("%s: diagnostics %s, recomputed %s", when, got, want)
		}
	}
	check("within the budget", false, 125, "")
	set(everyPod("shop/larger", 121))
	check("above it", true, 125, "larger")
	// One policy less, and there is room.
	w.set(w.noPolicy("shop/large"))
	check("a policy less", false, 126, "")
	set(everyPod("shop/large", 120))
	check("again", false, 125, "larger")
	for i := range 1 << 10 { // the members of each set become half as many
		w.set(w.noPod(fmt.Sprintf("many/p%d", i)))
	}
	check("half the pods", true, 246, "")
}

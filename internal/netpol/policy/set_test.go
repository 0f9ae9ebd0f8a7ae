// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// Two sets may be shared only if they mean the same. Each row differs from
// every other, mostly from the first in one thing.
func TestSetsThatMeanOtherThingsHaveOtherKeys(t *testing.T) {
	all, x, y := cluster.Everything(), selectorOf("app=x"), selectorOf("app=y")
	own := func(namespace string, pods cluster.Selector) policy.Selection {
		return policy.Selection{Namespace: namespace, Pods: pods}
	}
	http, dns := []string{"http"}, []string{"dns"}
	specs := map[string]*policy.SetSpec{
		"pods of a namespace":           policy.NewSetSpec(false, 0, nil, own("a", x)),
		"pods of another namespace":     policy.NewSetSpec(false, 0, nil, own("b", x)),
		"other pods":                    policy.NewSetSpec(false, 0, nil, own("a", y)),
		"all pods":                      policy.NewSetSpec(false, 0, nil, own("a", all)),
		"both pods":                     policy.NewSetSpec(false, 0, nil, own("a", x), own("a", y)),
		"both pods, of two namespaces":  policy.NewSetSpec(false, 0, nil, own("a", x), own("b", y)),
		"local pods":                    policy.NewSetSpec(true, 0, nil, own("a", x)),
		"both pods, local":              policy.NewSetSpec(true, 0, nil, own("a", x), own("a", y)),
		"another port of both pods":     policy.NewSetSpec(false, cluster.TCP, dns, own("a", x), own("a", y)),
		"the name for UDP of both pods": policy.NewSetSpec(false, cluster.UDP, http, own("a", x), own("a", y)),
		"a named port":                  policy.NewSetSpec(false, cluster.TCP, http, own("a", x)),
		"the port of local pods":        policy.NewSetSpec(true, cluster.TCP, http, own("a", x)),
		"a port of another name":        policy.NewSetSpec(false, cluster.TCP, dns, own("a", x)),
		"two named ports": policy.NewSetSpec(false, cluster.TCP, []string{"http", "dns"},
			own("a", x)),
		"a named port of both pods":     policy.NewSetSpec(false, cluster.TCP, http, own("a", x), own("a", y)),
		"the name for another protocol": policy.NewSetSpec(false, cluster.UDP, http, own("a", x)),
		"selected namespaces": policy.NewSetSpec(false, 0, nil,
			policy.Selection{Namespaces: &x, Pods: all}),
		"other selected namespaces": policy.NewSetSpec(false, 0, nil,
			policy.Selection{Namespaces: &y, Pods: all}),
		"selected pods of all namespaces": policy.NewSetSpec(false, 0, nil,
			policy.Selection{Namespaces: &all, Pods: x}),
		"all pods of the namespaces there are": policy.NewSetSpec(false, 0, nil,
			policy.Selection{Namespaces: &all, Pods: all}),
		"all pods, of namespaces known or not": policy.NewSetSpec(false, 0, nil, policy.Selection{Pods: all}),
	}
	known := map[policy.SetKey]string{}
	for name, spec := range specs {
		key := spec.Key()
		if other, again := known[key]; again {
			t.Errorf("%s and %s have one key", name, other)
		}
		known[key] = name
	}
	for name, again := range map[string]*policy.SetSpec{
		"both pods":       policy.NewSetSpec(false, 0, nil, own("a", y), own("a", x), own("a", y)),
		"two named ports": policy.NewSetSpec(false, cluster.TCP, []string{"dns", "http", "dns"}, own("a", x)),
	} {
		if again.Key() != specs[name].Key() {
			t.Errorf("%s, written in another way, have another key", name)
		}
	}
}

// While a pod that is being deleted still names an address that another pod
// got, the address belongs to the other. As long as nobody got it, it stays
// with those that leave.
func TestAnAddressBelongsToThePodThatStays(t *testing.T) {
	tests := []struct {
		name string
		pods map[string]string // labels; a name with "-" is being deleted
		want string
	}{
		{"the peer leaves, another stays", map[string]string{"x-": "app=db", "y": "app=no"}, ""},
		{"another leaves, the peer stays", map[string]string{"x": "app=db", "y-": "app=no"}, "10.0.0.2"},
		{"the peer leaves alone", map[string]string{"x-": "app=db"}, "10.0.0.2"},
		{"both leave", map[string]string{"x-": "app=db", "y-": "app=no"}, "10.0.0.2"},
		{"both stay", map[string]string{"x": "app=db", "y": "app=no"}, "10.0.0.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.set(w.namespace("shop", ""), w.pod("shop/web", "one", "10.0.0.1", "app=web"),
				w.policy("shop/p", "app=web", "app=db"))
			for name, text := range tt.pods {
				w.set(leavingOrNot(name, text))
			}
			if got := w.members(t); got != tt.want {
				t.Errorf("members = %q, want %q", got, tt.want)
			}
			if got := membersOf(policy.Resolve(w.store.Snapshot(), "one")); got != tt.want {
				t.Errorf("recomputed members = %q, want %q", got, tt.want)
			}
		})
	}
}

func leavingOrNot(name, text string) func(*cluster.Tx) {
	p := &cluster.Pod{Key: keyOf("shop/" + name), Node: "two", Labels: labelsOf(text),
		IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
	p.Terminating = name[len(name)-1] == '-'
	return func(tx *cluster.Tx) { tx.SetPod(p) }
}

// membersOf returns the IPv4 addresses of all sets.
func membersOf(m *policy.Model) (text string) {
	for _, members := range m.Sets {
		for _, e := range inet.Sorted(members.V4) {
			text += e.Addr.String()
		}
	}
	return text
}

// A name is the digest of a key cut short. It must still tell apart what a large
// cluster holds.
func TestManyKeysHaveManyNames(t *testing.T) {
	const many = 20_000 // names of 25 bits would meet several times
	known := map[string]bool{}
	for i := range many {
		known[policy.NewSetSpec(false, 0, nil, policy.Selection{Namespace: fmt.Sprint(i),
			Pods: cluster.Everything()}).Key().Name()] = true
	}
	if len(known) != many {
		t.Errorf("%d names for %d keys", len(known), many)
	}
}

// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"net/netip"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
)

// Two sets may be shared only if they mean the same. Each row differs from
// every other, mostly from the first in one thing.
func TestSetsThatMeanOtherThingsHaveOtherKeys(t *testing.T) {
	all, x := cluster.Everything(), selectorOf("app=x")
	specs := map[string]policy.SetSpec{
		"pods of a namespace":                  {Namespace: "a", Pods: x},
		"pods of another namespace":            {Namespace: "b", Pods: x},
		"other pods":                           {Namespace: "a", Pods: selectorOf("app=y")},
		"all pods":                             {Namespace: "a", Pods: all},
		"local pods":                           {Namespace: "a", Pods: x, Local: true},
		"a named port":                         {Namespace: "a", Pods: x, PortName: "http", Protocol: cluster.TCP},
		"the port of local pods":               {Namespace: "a", Pods: x, PortName: "http", Protocol: cluster.TCP, Local: true},
		"a port of another name":               {Namespace: "a", Pods: x, PortName: "dns", Protocol: cluster.TCP},
		"the name for another protocol":        {Namespace: "a", Pods: x, PortName: "http", Protocol: cluster.UDP},
		"selected namespaces":                  {Namespaces: &x, Pods: all},
		"other selected namespaces":            {Namespaces: new(selectorOf("app=y")), Pods: all},
		"selected pods of all namespaces":      {Namespaces: &all, Pods: x},
		"all pods of the namespaces there are": {Namespaces: &all, Pods: all},
		"all pods, of namespaces known or not": {Pods: all},
	}
	known := map[policy.SetKey]string{}
	for name, spec := range specs {
		key := spec.Key()
		if other, again := known[key]; again {
			t.Errorf("%s and %s have one key", name, other)
		}
		known[key] = name
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
			w.set(w.namespace("shop", ""), w.pod("shop/web", "one", "10.0.0.1", "app=web"), w.policy("shop/p", "app=web", "app=db"))
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
	p := &cluster.Pod{Key: keyOf("shop/" + name), Node: "two", Labels: labelsOf(text), IPs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}
	p.Terminating = name[len(name)-1] == '-'
	return func(tx *cluster.Tx) { tx.SetPod(p) }
}

// membersOf returns the IPv4 addresses of all sets.
func membersOf(m *policy.Model) (text string) {
	for _, members := range m.Sets {
		for _, e := range filter.Sorted(members.V4) {
			text += e.Addr.String()
		}
	}
	return text
}

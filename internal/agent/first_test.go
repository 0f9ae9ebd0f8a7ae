// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

func podAt(namespace, node, ip string) cluster.Change[cluster.Pod] {
	return cluster.Change[cluster.Pod]{New: &cluster.Pod{Key: cluster.Key{Namespace: namespace, Name: ip}, Node: node, IPs: []netip.Addr{netip.MustParseAddr(ip)}}}
}

// policyIn has so many peers.
func policyIn(namespace string, peers int) cluster.Change[cluster.Policy] {
	p := &cluster.Policy{Key: cluster.Key{Namespace: namespace, Name: "p"}}
	p.Ingress = []cluster.Rule{{Peers: cluster.Peers{List: make([]cluster.Peer, peers)}}}
	return cluster.Change[cluster.Policy]{New: p}
}

func remotePods(n int) (list []cluster.Change[cluster.Pod]) {
	for i := range n {
		list = append(list, podAt("far", "two", fmt.Sprintf("10.1.%d.%d", i/250, i%250)))
	}
	return list
}

func has(d cluster.Delta) string {
	var list []string
	for _, c := range d.Pods {
		if isLocal(c, "one") {
			list = append(list, "pod of "+namespaceOf(c))
		}
	}
	for _, c := range d.Policies {
		list = append(list, "policy of "+policyOf(c).Key.Namespace)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func TestPodsOfThisNodeComeFirst(t *testing.T) {
	here := func(ns, ip string) cluster.Change[cluster.Pod] { return podAt(ns, "one", ip) }
	type pods = []cluster.Change[cluster.Pod]
	type policies = []cluster.Change[cluster.Policy]
	tests := []struct {
		name        string
		pods        pods
		policies    policies
		first, rest string
		late        int // pods in the rest
	}{
		{"a pod alone", pods{here("a", "10.0.0.1")}, nil, "pod of a", "", 0},
		{"with little else", append(remotePods(20), here("a", "10.0.0.1")), policies{policyIn("b", 9)}, "pod of a, policy of b", "", 0},
		{"with many of other nodes", append(remotePods(1000), here("a", "10.0.0.1")), nil, "pod of a", "", 1000},
		{"no pod of this node", remotePods(1000), policies{policyIn("b", 1000)}, "policy of b", "", 0},
		{"with a giant of another namespace", pods{here("a", "10.0.0.1")}, policies{policyIn("a", 3), policyIn("b", 1000)}, "pod of a, policy of a", "policy of b", 0},
		{"with a giant of its own", pods{here("a", "10.0.0.1"), here("b", "10.0.0.2")}, policies{policyIn("a", 3), policyIn("b", 1000)},
			"pod of a, policy of a", "pod of b, policy of b", 1},
		{"an address of two", pods{here("a", "10.0.0.1"), here("b", "10.0.0.1")}, policies{policyIn("b", 1000)}, "pod of a, pod of b, policy of b", "", 0},
		{"an address of another node's pod", append(remotePods(1000), here("a", "10.1.0.7")), nil, "pod of a", "", 999},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := cluster.Delta{Revision: 7, Namespaces: []cluster.Change[cluster.Namespace]{{}}, Pods: tt.pods, Policies: tt.policies}
			first, rest := localFirst(d, "one")
			if has(first) != tt.first || has(rest) != tt.rest || len(rest.Pods) != tt.late || len(first.Namespaces) != 1 || len(rest.Namespaces) != 0 {
				t.Errorf("first %q, then %q and %d pods", has(first), has(rest), len(rest.Pods))
			}
			if len(first.Pods)+len(rest.Pods) != len(tt.pods) || len(first.Policies)+len(rest.Policies) != len(tt.policies) {
				t.Error("something is lost")
			}
			if split := tt.rest != "" || tt.late > 0; split != (rest.Revision == 7) || first.Revision != 7 {
				t.Errorf("revisions are %d and %d", first.Revision, rest.Revision)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/policy"
)

func podAt(namespace, node, ip string) cluster.Change[cluster.Pod] {
	return cluster.Change[cluster.Pod]{New: &cluster.Pod{Key: cluster.Key{Namespace: namespace, Name: ip}, Node: node, IPs: []netip.Addr{netip.MustParseAddr(ip)}}}
}

// policyIn has so many peers.
func policyIn(namespace string, peers int) cluster.Change[cluster.Policy] {
	p := &cluster.Policy{Key: cluster.Key{Namespace: namespace, Name: "p"}}
	p.Ingress = []cluster.Rule{{Peers: cluster.Peers{List: slices.Repeat([]cluster.Peer{{Block: &cluster.IPBlock{}}}, peers)}}}
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
			first, rest := localFirst(d, "one", false)
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

// What a policy costs is counted in one way: a selector of many values is much work, too.
func TestAPolicyWithALargeSelectorIsMuchWork(t *testing.T) {
	p := policyIn("b", 0)
	p.New.Ingress[0].Peers.List = []cluster.Peer{{Pods: largeSelector(t)}}
	d := cluster.Delta{Revision: 7, Pods: []cluster.Change[cluster.Pod]{podAt("a", "one", "10.0.0.1"), podAt("b", "one", "10.0.0.2")}, Policies: changes(p).Policies}
	if first, rest := localFirst(d, "one", false); has(first) != "pod of a" || has(rest) != "pod of b, policy of b" {
		t.Errorf("first %q, then %q", has(first), has(rest))
	}
}

func largeSelector(t *testing.T) cluster.Selector {
	t.Helper()
	values := make([]string, 1000)
	for i := range values {
		values[i] = fmt.Sprint("v", i)
	}
	r, err := labels.NewRequirement("app", selection.In, values)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.NewSelector(labels.NewSelector().Add(*r))
}

// Where unknown pods are open a pod that waits for a giant of its namespace is open
// until then. What is known of it holds at once: the policies that were there.
func TestWhereUnknownPodsAreOpenNoNewPodWaitsForAGiant(t *testing.T) {
	starts := podAt("b", "one", "10.0.0.2")
	known := cluster.Change[cluster.Pod]{Old: starts.New, New: podAt("b", "one", "10.0.0.2").New}
	known.New.Labels = cluster.NewLabels(map[string]string{"app": "b"})
	for _, tt := range []struct {
		name        string
		pod         cluster.Change[cluster.Pod]
		open        bool
		first, rest string
	}{
		{"starts", starts, true, "pod of a, pod of b", "policy of b"},
		{"is relabelled", known, true, "pod of a", "pod of b, policy of b"},
		{"starts closed", starts, false, "pod of a", "pod of b, policy of b"},
	} {
		d := cluster.Delta{Revision: 7, Pods: []cluster.Change[cluster.Pod]{podAt("a", "one", "10.0.0.1"), tt.pod}, Policies: changes(policyIn("b", 1000)).Policies}
		if first, rest := localFirst(d, "one", tt.open); has(first) != tt.first || has(rest) != tt.rest {
			t.Errorf("%s: first %q, then %q", tt.name, has(first), has(rest))
		}
	}
	alone := cluster.Delta{Revision: 7, Pods: []cluster.Change[cluster.Pod]{starts}, Policies: changes(policyIn("b", 1000)).Policies}
	if first, rest := localFirst(alone, "one", true); has(first) != "pod of b" || has(rest) != "policy of b" {
		t.Errorf("alone: first %q, then %q", has(first), has(rest))
	}
}

// At the gate such a pod waits for its policies all the same.
func TestTheGateWaitsForPoliciesThatAreLate(t *testing.T) {
	pod := podAt("b", "one", "10.0.0.2").New
	m := &policy.Model{Layout: &policy.Layout{Workloads: []policy.Workload{{Pod: pod}, {Pod: podAt("a", "one", "10.0.0.1").New}}}}
	l := &Loop{Node: "one", OpenUnknown: true, fair: newFair("one", true)}
	if got := l.waiting(m, changes(policyIn("b", 1)), nil); len(got) != 1 || !got[pod.Key] {
		t.Errorf("%v wait", got)
	}
}

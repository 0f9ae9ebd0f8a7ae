// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
)

func selectorOf(t *testing.T, text string) cluster.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.NewSelector(s)
}

// A name stands for a meaning: two sets with one name would be one set.
func TestSetsThatMeanOtherThingsHaveOtherNames(t *testing.T) {
	all, x := cluster.Everything(), selectorOf(t, "app=x")
	own := func(pods cluster.Selector) cluster.Peer { return cluster.Peer{Pods: pods} }
	selected := func(namespaces, pods cluster.Selector) cluster.Peer {
		return cluster.Peer{Namespaces: &namespaces, Pods: pods}
	}
	c := &compiled{sets: map[string]*setRef{}}
	known := map[string]string{}
	add := func(what string, kind inet.SetKind, specs ...*policy.SetSpec) {
		for _, f := range inet.Families {
			for _, spec := range specs {
				name := c.podSet(f, spec, kind)
				if other, again := known[name]; again && other != what {
					t.Errorf("%s and %s are both %s", what, other, name)
				}
				known[name] = what
			}
		}
	}
	for what, in := range map[string]struct {
		namespace string
		peers     []cluster.Peer
	}{
		"pods of a namespace":                  {"a", []cluster.Peer{own(x)}},
		"pods of another namespace":            {"b", []cluster.Peer{own(x)}},
		"all pods of a namespace":              {"a", []cluster.Peer{own(all)}},
		"selected namespaces":                  {"a", []cluster.Peer{selected(x, all)}},
		"selected pods of all namespaces":      {"a", []cluster.Peer{selected(all, x)}},
		"all pods of the namespaces there are": {"a", []cluster.Peer{selected(all, all)}},
	} {
		add(what, inet.Addrs, resolved(in.namespace, all, cluster.Peers{List: in.peers},
			cluster.Ports{Any: true}).Ingress[0].Pods...)
	}
	for what, in := range map[string]struct {
		peers cluster.Peers
		ports []cluster.Port
	}{
		"a named port": {cluster.Peers{List: []cluster.Peer{own(x)}},
			[]cluster.Port{{Name: "http", Protocol: cluster.TCP}}},
		"a port of another name": {cluster.Peers{List: []cluster.Peer{own(x)}},
			[]cluster.Port{{Name: "dns", Protocol: cluster.TCP}}},
		"the name for another protocol": {cluster.Peers{List: []cluster.Peer{own(x)}},
			[]cluster.Port{{Name: "http", Protocol: cluster.UDP}}},
		"two names": {cluster.Peers{List: []cluster.Peer{own(x)}},
			[]cluster.Port{{Name: "http", Protocol: cluster.TCP}, {Name: "dns", Protocol: cluster.TCP}}},
	} {
		add(what, inet.AddrPorts, resolved("a", all, in.peers, cluster.Ports{List: in.ports}).Egress[0].Direct...)
	}
	http := cluster.Ports{List: []cluster.Port{{Name: "http", Protocol: cluster.TCP}}}
	add("the port of local pods", inet.AddrPorts, resolved("a", x, cluster.Peers{Any: true}, http).Ingress[0].Named...)
	add("a named port of every pod", inet.AddrPorts, resolved("a", x, cluster.Peers{Any: true},
		http).Egress[0].Named...)
	if len(known) != 2*12 {
		t.Errorf("%d names for 12 meanings in two families", len(known))
	}
}

// resolved returns a policy that isolates a pod in both directions, with one rule.
func resolved(namespace string, subject cluster.Selector, peers cluster.Peers, ports cluster.Ports) *policy.Resolved {
	rules := []cluster.Rule{{Peers: peers, Ports: ports}}
	p := &cluster.Policy{Key: cluster.Key{Namespace: namespace, Name: "p"}, Subject: subject,
		IsolatesIngress: true, IsolatesEgress: true, Ingress: rules, Egress: rules}
	pod := &cluster.Pod{Key: cluster.Key{Namespace: namespace, Name: "pod"}, Node: "one",
		IPs:    []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		Labels: cluster.NewLabels(map[string]string{"app": "x"})}
	model := policy.Resolve(&cluster.Snapshot{Pods: []*cluster.Pod{pod}, Policies: []*cluster.Policy{p}}, "one")
	return model.Layout.Workloads[0].Ingress.Policies[0]
}

func TestListsOfPoliciesThatRunTogetherAreNotTheSame(t *testing.T) {
	list := func(keys ...cluster.Key) (list []*policy.Resolved) {
		for _, k := range keys {
			list = append(list, &policy.Resolved{Policy: &cluster.Policy{Key: k}})
		}
		return list
	}
	known := map[[32]byte]bool{}
	for _, l := range [][]*policy.Resolved{
		nil,
		list(cluster.Key{Namespace: "a", Name: "bc"}),
		list(cluster.Key{Namespace: "ab", Name: "c"}),
		list(cluster.Key{Namespace: "b", Name: "bc"}),
		list(cluster.Key{Namespace: "a", Name: "b"}, cluster.Key{Namespace: "a", Name: "c"}),
		list(cluster.Key{Namespace: "a", Name: "bac"}),
		list(cluster.Key{Namespace: "a", Name: "ba"}, cluster.Key{Namespace: "", Name: "c"}),
	} {
		known[policyList(l)] = true
	}
	if len(known) != 7 {
		t.Errorf("%d texts for 7 lists", len(known))
	}
}

// A digest is short so that names fit wherever the kernel keeps them. It must
// still tell apart what large clusters hold; names that are shortened further
// would meet here.
func TestManyContentsHaveManyNames(t *testing.T) {
	const many = 300_000 // a digest of 30 bits would meet dozens of times
	known := make(map[string]bool, 2*many)
	for i := range many {
		known[digest(fmt.Sprintf("team-%d", i), "app")] = true
		known[digest("team-", fmt.Sprintf("%dapp", i))] = true
	}
	if len(known) != 2*many {
		t.Errorf("%d names for %d contents", len(known), 2*many)
	}
	long := strings.Repeat("n", 63)
	named := cluster.Ports{List: []cluster.Port{{Name: strings.Repeat("p", 15), Protocol: cluster.SCTP}}}
	spec := resolved(long, selectorOf(t, "app=x"), cluster.Peers{Any: true}, named).Egress[0].Named[0]
	c := &compiled{sets: map[string]*setRef{}}
	if name := c.podSet(inet.IPv6, spec, inet.AddrPorts); len(name) > 27 {
		t.Errorf("%s has %d characters; older tools take 27", name, len(name))
	}
}

// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
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
	addrs := map[string]policy.SetSpec{
		"pods of a namespace":                  {Namespace: "a", Pods: x},
		"pods of another namespace":            {Namespace: "b", Pods: x},
		"all pods of a namespace":              {Namespace: "a", Pods: all},
		"local pods":                           {Namespace: "a", Pods: x, Local: true},
		"selected namespaces":                  {Namespaces: &x, Pods: all},
		"selected pods of all namespaces":      {Namespaces: &all, Pods: x},
		"all pods of the namespaces there are": {Namespaces: &all, Pods: all},
		"all pods":                             {Pods: all},
	}
	ports := map[string]policy.SetSpec{
		"a named port":                  {Namespace: "a", Pods: x, PortName: "http", Protocol: cluster.TCP},
		"the port of local pods":        {Namespace: "a", Pods: x, PortName: "http", Protocol: cluster.TCP, Local: true},
		"a port of another name":        {Namespace: "a", Pods: x, PortName: "dns", Protocol: cluster.TCP},
		"the name for another protocol": {Namespace: "a", Pods: x, PortName: "http", Protocol: cluster.UDP},
	}
	b := &builder{sets: map[string]*setRef{}}
	known := map[string]string{}
	add := func(what string, spec policy.SetSpec, kind filter.SetKind) {
		for _, f := range filter.Families {
			name := b.podSet(f, &spec, kind)
			if other, again := known[name]; again {
				t.Errorf("%s and %s are both %s", what, other, name)
			}
			known[name] = what
		}
	}
	for what, spec := range addrs {
		add(what, spec, filter.Addrs)
	}
	for what, spec := range ports {
		add(what, spec, filter.AddrPorts)
	}
}

func TestListsOfPoliciesThatRunTogetherAreNotTheSame(t *testing.T) {
	list := func(keys ...cluster.Key) (list []*policy.Resolved) {
		for _, k := range keys {
			list = append(list, &policy.Resolved{Policy: &cluster.Policy{Key: k}})
		}
		return list
	}
	known := map[string]bool{}
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
	spec := policy.SetSpec{Namespace: long, Pods: selectorOf(t, "app="+long), PortName: strings.Repeat("p", 15), Protocol: cluster.SCTP}
	if name := newTestBuilder().podSet(filter.IPv6, &spec, filter.AddrPorts); len(name) > 27 {
		t.Errorf("%s has %d characters; older tools take 27", name, len(name))
	}
}

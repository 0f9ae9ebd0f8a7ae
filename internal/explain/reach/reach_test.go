// SPDX-License-Identifier: Apache-2.0

package reach_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/explain/matrix"
	"github.com/podwall/podwall/internal/explain/reach"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
)

func hosts() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
}

// The counts of a map are those of a matrix, which judges every pair of pods.
func TestTheMapHasTheCountsOfTheMatrix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := alike(t, gen.Snapshot(t))
		workload := map[cluster.Key]string{}
		for _, p := range snap.Pods {
			if name := rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "workload"); name != "" {
				workload[p.Key] = name
			}
		}
		ports := []matrix.Port{{Protocol: inet.TCP, Number: rapid.SampledFrom([]uint16{53, 80, 443}).Draw(t, "tcp")},
			{Protocol: inet.UDP, Number: 53}, {Protocol: 1}}
		m := reach.New(snap, explain.New(snap), reach.Options{Workload: workload, Hosts: hosts()})
		for _, by := range []matrix.By{matrix.ByWorkload, matrix.ByNamespace} {
			o := matrix.Options{By: by, Workload: workload, Hosts: hosts(), Ports: ports}
			want, err := matrix.Build(snap, explain.New(snap), o)
			if err != nil {
				t.Fatal(err)
			}
			same(t, m, want, by, gen.Describe(snap))
		}
	})
}

// alike gives, in most clusters, all pods of a namespace the labels and ports of the first one, so that
// little else tells them apart.
func alike(t *rapid.T, snap *cluster.Snapshot) *cluster.Snapshot {
	if rapid.IntRange(0, 3).Draw(t, "alike") == 0 {
		return snap
	}
	s := *snap
	s.Pods = nil
	first := map[string]*cluster.Pod{}
	for _, p := range snap.Pods {
		if first[p.Key.Namespace] == nil {
			first[p.Key.Namespace] = p
		}
		q := *p
		q.Labels, q.Declared = first[p.Key.Namespace].Labels, first[p.Key.Namespace].Declared
		s.Pods = append(s.Pods, &q)
	}
	return &s
}

func same(t *rapid.T, m *reach.Map, want *matrix.Matrix, by matrix.By, what string) {
	groups, names := groupsOf(m, by)
	if len(groups) != len(want.Ends) || m.LeftOut() != len(want.LeftOut) {
		t.Fatalf("%d groups and %d left out, want %d and %d", len(groups), m.LeftOut(), len(want.Ends), len(want.LeftOut))
	}
	for p, port := range want.Ports {
		cells, err := m.Cells(t.Context(), port, groups, groups)
		if err != nil {
			t.Fatal(err)
		}
		for s := range groups {
			if names[s] != want.Ends[s].Name {
				t.Fatalf("end %d is %s, want %s", s, names[s], want.Ends[s].Name)
			}
			for d := range groups {
				if got := cells[s][d]; got != want.Cell(p, s, d) {
					t.Fatalf("%s to %s %s: %+v, want %+v\n%s", names[s], names[d], port, got, want.Cell(p, s, d), what)
				}
			}
		}
	}
}

func groupsOf(m *reach.Map, by matrix.By) (groups []reach.Group, names []string) {
	for _, u := range m.Units() {
		name := u.Name
		if by == matrix.ByNamespace && u.Namespace != "" {
			name = u.Namespace
		}
		if n := len(names); n > 0 && names[n-1] == name {
			groups[n-1] = append(groups[n-1], u)
			continue
		}
		groups, names = append(groups, reach.Group{u}), append(names, name)
	}
	return groups, names
}

// Pods that no policy tells apart are judged once, on whichever node they are and whatever other
// labels they have.
func TestEqualPodsAreOneClass(t *testing.T) {
	if m := reach.New(large(5000, 50, 500), explain.New(large(5000, 50, 500)), reach.Options{}); m.Classes() > 1000 {
		t.Errorf("%d classes of 5,000 pods of 500 applications in two families", m.Classes())
	}
}

// Where the rules of a namespace may be above the budget of a node, it matters which pods share one.
func TestNodesCountWhereABudgetMayBeExceeded(t *testing.T) {
	snap := large(100, 7, 1)
	few := reach.New(snap, explain.New(snap), reach.Options{}).Classes()
	rule := cluster.Rule{Peers: cluster.Peers{Any: true}}
	for i := range 20_000 {
		rule.Ports.List = append(rule.Ports.List, cluster.Port{Protocol: cluster.TCP, First: uint16(i + 1), Last: uint16(i + 1)})
	}
	snap.Policies = append(snap.Policies, &cluster.Policy{Key: cluster.Key{Namespace: "team-0", Name: "giant"},
		Subject: cluster.Everything(), IsolatesIngress: true, Ingress: []cluster.Rule{rule}})
	if many := reach.New(snap, explain.New(snap), reach.Options{}).Classes(); many < few+9 {
		t.Errorf("%d classes with a giant policy, %d without", many, few)
	}
}

// A block that has one of two equal pods tells them apart.
func TestBlocksTellEqualPodsApart(t *testing.T) {
	snap := large(20, 2, 1) // team-0 has pod-0 and pod-10
	snap.Policies = []*cluster.Policy{{Key: cluster.Key{Namespace: "team-1", Name: "block"}, Subject: cluster.Everything(),
		IsolatesIngress: true, Ingress: []cluster.Rule{{Ports: cluster.Ports{Any: true}, Peers: cluster.Peers{List: []cluster.Peer{
			{Block: &cluster.IPBlock{CIDR: netip.PrefixFrom(snap.Pods[0].IPs[0], 32)}}}}}}}}
	m := reach.New(snap, explain.New(snap), reach.Options{})
	groups, _ := groupsOf(m, matrix.ByNamespace)
	cells, err := m.Cells(t.Context(), matrix.Port{Protocol: inet.TCP, Number: 80}, groups[:1], groups[1:2])
	if want := (matrix.Count{Allowed: 2, Flows: 4}); err != nil || cells[0][0].IPv4 != want {
		t.Errorf("%+v, want %+v: %v", cells[0][0].IPv4, want, err)
	}
}

func TestAddressesAreLeftOut(t *testing.T) {
	snap := large(20, 2, 2)
	m := reach.New(snap, explain.New(snap), reach.Options{Hosts: hosts(), Skip: netip.Addr.Is6})
	groups, names := groupsOf(m, matrix.ByNamespace)
	cells, err := m.Cells(t.Context(), matrix.Port{Protocol: inet.TCP, Number: 80}, groups, groups)
	if err != nil || len(names) != 11 || cells[0][1].IPv6.Flows != 0 || cells[0][1].IPv4.Flows != 4 {
		t.Errorf("%q: %+v, %v", names, cells, err)
	}
}

// Of flows that are not all alike there is one of each verdict.
func TestSamplesHaveEveryVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		workload := map[cluster.Key]string{}
		for _, p := range snap.Pods {
			workload[p.Key] = rapid.SampledFrom([]string{"one", "two"}).Draw(t, "workload")
		}
		answers := explain.New(snap)
		m := reach.New(snap, answers, reach.Options{Workload: workload, Hosts: hosts()})
		port := matrix.Port{Protocol: inet.TCP, Number: 80}
		for _, src := range m.Units() {
			for _, dst := range m.Units() {
				cells, err := m.Cells(t.Context(), port, []reach.Group{{src}}, []reach.Group{{dst}})
				if err != nil {
					t.Fatal(err)
				}
				c := cells[0][0]
				yes, flows := c.IPv4.Allowed+c.IPv6.Allowed, c.IPv4.Flows+c.IPv6.Flows
				list, err := m.Samples(t.Context(), port, src, dst)
				if err != nil {
					t.Fatal(err)
				}
				var seen [2]bool
				for _, s := range list {
					if s.Allowed {
						seen[0] = true
					} else {
						seen[1] = true
					}
					if len(src.Pods) > 0 && s.Source == s.Destination {
						t.Fatalf("%+v is no flow", s)
					}
				}
				if seen != [2]bool{yes > 0, yes < flows} {
					t.Fatalf("%s to %s: %d of %d are allowed, the samples are %+v\n%s", src.Name, dst.Name, yes, flows, list,
						gen.Describe(snap))
				}
			}
		}
	})
}

func TestALongAnswerCanBeCancelled(t *testing.T) {
	snap := large(200, 4, 20)
	m := reach.New(snap, explain.New(snap), reach.Options{})
	groups, _ := groupsOf(m, matrix.ByNamespace)
	port := matrix.Port{Protocol: inet.TCP, Number: 80}
	answered := 0
	ctx, end := context.WithCancel(t.Context())
	defer end()
	err := m.Each(ctx, port, groups, groups, func(int, int, matrix.Cell) {
		if answered++; answered == 5 {
			end()
		}
	})
	if !errors.Is(err, context.Canceled) || answered != 5 {
		t.Errorf("%d answers, %v", answered, err)
	}
	if _, err := m.Cells(ctx, port, groups, groups); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := m.Samples(ctx, port, m.Units()[0], m.Units()[1]); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// large is a cluster of n pods on some nodes, in ten namespaces, of so many applications, each of
// which may be reached by the next one only. Each pod has a label of its own, as those of a
// StatefulSet have.
func large(n, nodes, apps int) *cluster.Snapshot {
	snap := &cluster.Snapshot{}
	for i := range 10 {
		name := fmt.Sprintf("team-%d", i)
		snap.Namespaces = append(snap.Namespaces, &cluster.Namespace{Name: name,
			Labels: cluster.NewLabels(map[string]string{"kubernetes.io/metadata.name": name})})
	}
	for i := range n {
		b := [4]byte{10, 0, byte(i / 250), byte(1 + i%250)}
		snap.Pods = append(snap.Pods, &cluster.Pod{
			Key:    cluster.Key{Namespace: fmt.Sprintf("team-%d", i%10), Name: fmt.Sprintf("pod-%d", i)},
			Node:   fmt.Sprintf("node-%d", i%nodes),
			Labels: cluster.NewLabels(map[string]string{"app": fmt.Sprint(i % apps), "index": fmt.Sprint(i)}),
			IPs:    []netip.Addr{netip.AddrFrom4(b), netip.AddrFrom16([16]byte{0: 0xfd, 13: b[1], 14: b[2], 15: b[3]})}})
	}
	for i := range apps {
		own, next := label("app", fmt.Sprint(i)), label("app", fmt.Sprint((i+1)%apps))
		every := cluster.Everything()
		snap.Policies = append(snap.Policies, &cluster.Policy{
			Key: cluster.Key{Namespace: fmt.Sprintf("team-%d", i%10), Name: fmt.Sprintf("app-%d", i)}, Subject: own,
			IsolatesIngress: true, Ingress: []cluster.Rule{{
				Peers: cluster.Peers{List: []cluster.Peer{{Namespaces: &every, Pods: next}}},
				Ports: cluster.Ports{List: []cluster.Port{{Protocol: cluster.TCP, First: 80, Last: 80}}}}}})
	}
	return snap
}

// The first graph of 5,000 pods of 500 workloads on 100 nodes, by namespace.
func BenchmarkTheFirstGraph(b *testing.B) {
	snap := large(5000, 100, 500)
	workload := map[cluster.Key]string{}
	for i, p := range snap.Pods {
		workload[p.Key] = fmt.Sprintf("app-%d", i%500)
	}
	for b.Loop() {
		m := reach.New(snap, explain.New(snap), reach.Options{Workload: workload, Hosts: hosts()})
		groups, _ := groupsOf(m, matrix.ByNamespace)
		if _, err := m.Cells(b.Context(), matrix.Port{Protocol: inet.TCP, Number: 80}, groups, groups); err != nil {
			b.Fatal(err)
		}
	}
}

func label(key, value string) cluster.Selector {
	return cluster.NewSelector(labels.SelectorFromSet(labels.Set{key: value}))
}

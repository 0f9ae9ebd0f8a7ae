// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/explain/diff"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

func hosts() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
}

func state(snap *cluster.Snapshot) diff.State {
	return diff.State{Snapshot: snap, Answers: explain.New(snap)}
}

// sole leaves out pods with an address that another pod has too: the programs close such
// an address, and the oracle gives it to one of them.
func sole(snap *cluster.Snapshot) *cluster.Snapshot {
	claims := map[netip.Addr]int{}
	s := *snap
	s.Pods = nil
	for _, p := range snap.Pods {
		claimed := false
		for _, a := range p.IPs {
			claims[a]++
			claimed = claimed || claims[a] > 1
		}
		if claimed {
			continue
		}
		s.Pods = append(s.Pods, p)
	}
	return &s
}

// twins adds copies of pods that differ in one thing, or in nothing but name and address.
// All of their addresses are in the same blocks: 10.0.0.x, which other pods have, is in
// many.
func twins(snap *cluster.Snapshot) *cluster.Snapshot {
	s := *snap
	s.Pods = slices.Clone(snap.Pods)
	for i, p := range snap.Pods[:min(3, len(snap.Pods))] {
		for kind := range 4 {
			twin := *p
			twin.Key.Name = fmt.Sprintf("%s-%s-%d", p.Key.Namespace, p.Key.Name, kind)
			four, six := [4]byte{10, 77, byte(i), byte(kind)}, [16]byte{0: 0xfd, 1: 0x77, 14: byte(i), 15: byte(kind)}
			twin.IPs = []netip.Addr{netip.AddrFrom4(four), netip.AddrFrom16(six)}
			switch kind {
			case 1:
				twin.Key.Namespace = "ab"
			case 2:
				twin.Declared = &cluster.Declared{Ports: []cluster.NamedPort{{Name: "http", Protocol: cluster.TCP, Port: 81}}}
			case 3:
				twin.Labels = cluster.NewLabels(map[string]string{"app": "x"})
			}
			s.Pods = append(s.Pods, &twin)
		}
	}
	return &s
}

// next changes a cluster: a few objects, or all.
func next(t *rapid.T, s *cluster.Store) *cluster.Snapshot {
	for range rapid.IntRange(0, 3).Draw(t, "rounds") {
		s.Update(gen.Change(t))
	}
	return s.Snapshot()
}

// byOracle and byNodes are two judges.
func byOracle(snap *cluster.Snapshot) func(oracle.Flow) bool {
	return func(f oracle.Flow) bool { return oracle.Judge(snap, f).Allowed }
}

func byNodes(snap *cluster.Snapshot) func(oracle.Flow) bool {
	c := explain.New(snap)
	return func(f oracle.Flow) bool {
		ok, err := c.Allowed(explain.Flow{Src: explain.End{Pod: f.Src.Pod, Addr: f.Src.Addr},
			Dst: explain.End{Pod: f.Dst.Pod, Addr: f.Dst.Addr}, Protocol: inet.Protocol(f.Protocol), Port: f.Port})
		return ok && err == nil
	}
}

// table is what a judge allows, by source, destination, family and port.
type table map[[4]string]bool

func tableOf(snap *cluster.Snapshot, ports []diff.Range, allows func(oracle.Flow) bool) table {
	type end struct {
		name string
		at   oracle.Endpoint
	}
	var ends []end
	for _, p := range snap.Pods {
		if !p.Networked() || p.Node == "" {
			continue
		}
		for _, a := range p.IPs {
			ends = append(ends, end{p.Key.String(), oracle.Endpoint{Pod: p.Key, Addr: a}})
		}
	}
	for _, a := range hosts() {
		ends = append(ends, end{a.String(), oracle.Addr(a)})
	}
	list := table{}
	for _, src := range ends {
		for _, dst := range ends {
			if src.at.Addr.Is4() != dst.at.Addr.Is4() || src.at.Pod == dst.at.Pod {
				continue
			}
			for _, p := range ports {
				// A number inside of the range, not its first one.
				f := oracle.Flow{Src: src.at, Dst: dst.at, Protocol: cluster.Protocol(p.Protocol),
					Port: p.First + (p.Last-p.First)/2}
				if allows(f) {
					list[[4]string{src.name, dst.name, family(src.at.Addr), p.String()}] = true
				}
			}
		}
	}
	return list
}

func family(a netip.Addr) string {
	if a.Is4() {
		return string(diff.IPv4)
	}
	return string(diff.IPv6)
}

// expand writes what a difference says as what opens (true) and closes.
func expand(t *rapid.T, d *diff.Diff, before, after *cluster.Snapshot) map[[4]string]bool {
	families := func(name string, snap *cluster.Snapshot) (list []string) {
		for _, p := range snap.Pods {
			for _, a := range p.IPs {
				if p.Key.String() == name && p.Networked() && p.Node != "" {
					list = append(list, family(a))
				}
			}
		}
		for _, a := range hosts() {
			if a.String() == name {
				list = append(list, family(a))
			}
		}
		return list
	}
	list := map[[4]string]bool{}
	for _, c := range d.Changes {
		snap, flows := before, 0
		if c.Opens {
			snap = after
		}
		for _, src := range c.Sources.Ends {
			for _, dst := range c.Destinations.Ends {
				for _, f := range c.Families {
					if src == dst || !strings.Contains(fmt.Sprint(families(src, snap)), string(f)) ||
						!strings.Contains(fmt.Sprint(families(dst, snap)), string(f)) {
						continue
					}
					for _, p := range c.Ports {
						k := [4]string{src, dst, string(f), p.String()}
						if _, twice := list[k]; twice {
							t.Fatalf("%v is in two changes", k)
						}
						list[k] = c.Opens
						flows++
					}
				}
			}
		}
		if flows != c.Flows {
			t.Fatalf("%d flows are said to be %d: %+v", flows, c.Flows, c)
		}
	}
	return list
}

// What opens and closes is exactly the difference of what the oracle allows, on the
// ports that no policy names too.
func TestTheDifferenceIsThatOfTheOracle(t *testing.T) {
	theDifference(t, byOracle, func(s *cluster.Snapshot) *cluster.Snapshot { return twins(sole(s)) })
}

// It is that of the nodes' verdicts where pods have addresses of others, too.
func TestTheDifferenceIsThatOfTheNodes(t *testing.T) {
	theDifference(t, byNodes, func(s *cluster.Snapshot) *cluster.Snapshot { return s })
}

func theDifference(t *testing.T, judge func(*cluster.Snapshot) func(oracle.Flow) bool,
	prepare func(*cluster.Snapshot) *cluster.Snapshot) {
	changed := 0
	rapid.Check(t, func(t *rapid.T) {
		s := cluster.NewStore()
		gen.Fill(t, s)
		before := prepare(s.Snapshot())
		after := prepare(next(t, s))
		ports := diff.Ranges(before, after)
		d, err := diff.Compare(state(before), state(after), diff.Options{Hosts: hosts(), Ports: ports})
		if err != nil {
			t.Fatal(err)
		}
		got := expand(t, d, before, after)
		was, is := tableOf(before, ports, judge(before)), tableOf(after, ports, judge(after))
		show := func() string {
			return fmt.Sprintf("%s\nbefore:\n%s\nafter:\n%s", d, gen.Describe(before), gen.Describe(after))
		}
		for k, opens := range got {
			if was[k] == is[k] || is[k] != opens {
				t.Fatalf("%v opens: %t, the oracle says %t, then %t\n%s", k, opens, was[k], is[k], show())
			}
		}
		for _, list := range []table{was, is} {
			for k := range list {
				if _, said := got[k]; was[k] != is[k] && !said {
					t.Fatalf("%v changes from %t to %t, and is not said\n%s", k, was[k], is[k], show())
				}
			}
		}
		for _, c := range d.Changes {
			if (c.With == diff.Staying) != (len(c.Because) > 0) {
				t.Fatalf("no cause, or one too many: %+v\n%s", c, show())
			}
		}
		changed += len(got)
	})
	if changed < 1000 {
		t.Errorf("%d flows changed: the clusters are too dull", changed)
	}
}

// Two equal states have no difference.
func TestNothingChangesWithoutAChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		d, err := diff.Compare(state(snap), state(snap), diff.Options{Hosts: hosts(), Ports: diff.Ranges(snap)})
		if err != nil || len(d.Changes)+len(d.New)+len(d.Gone) > 0 {
			t.Fatalf("%v %v", err, d)
		}
	})
}

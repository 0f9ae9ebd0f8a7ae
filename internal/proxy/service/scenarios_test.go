// SPDX-License-Identifier: Apache-2.0

package service

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/scenarios"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/program"
)

// The answers were written by hand. Both witnesses give them, and the index gives them after whatever
// was there before.
func TestScenarios(t *testing.T) {
	w, list, err := scenarios.Read(os.DirFS("../../../testdata/services"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		t.Run(s.File+"/"+s.Name, func(t *testing.T) {
			snap, found, err := w.Snapshot(s.Objects)
			if err != nil {
				t.Fatal(err)
			}
			for i := range w.Nodes {
				set := Settings(w.Settings(s, &w.Nodes[i]))
				m, more := Resolve(snap, set)
				if i == 0 {
					compareFound(t, s, slices.Concat(found, more))
				}
				x := history(t, w, s, set, snap)
				if got, want := text(x.Model(), x.Diagnostics()), text(m, more); got != want {
					t.Errorf("the index has\n%s\nrecomputation\n%s", got, want)
				}
				checkPackets(t, w, s, &w.Nodes[i], snap, set, m)
				checkHealthPorts(t, s, &w.Nodes[i], m)
			}
		})
	}
	if len(list) < 80 {
		t.Errorf("only %d scenarios", len(list))
	}
}

// history returns the index after the objects of before, then those of the scenario.
func history(t *testing.T, w *scenarios.World, s *scenarios.Scenario, set Settings, snap *cluster.ServiceSnapshot) *Index {
	t.Helper()
	before, _, err := w.Snapshot(s.Before)
	if err != nil {
		t.Fatal(err)
	}
	x := NewIndex(set)
	x.apply(&cluster.ServiceDelta{Services: arrivals(before.Services), Slices: arrivals(before.Slices),
		Nodes: arrivals(before.Nodes), Pods: arrivals(before.Pods)})
	x.apply(&cluster.ServiceDelta{
		Services: between(before.Services, snap.Services, func(s *cluster.Service) cluster.Key { return s.Key }),
		Slices:   between(before.Slices, snap.Slices, func(s *cluster.EndpointSlice) cluster.Key { return s.Key }),
		Nodes: between(before.Nodes, snap.Nodes, func(n *cluster.Node) cluster.Key {
			return cluster.Key{Name: n.Name}
		}),
	})
	return x
}

func arrivals[T any](list []*T) (c []cluster.Change[T]) {
	for _, v := range list {
		c = append(c, cluster.Change[T]{New: v})
	}
	return c
}

func between[T any](before, after []*T, key func(*T) cluster.Key) (c []cluster.Change[T]) {
	find := func(list []*T, k cluster.Key) *T {
		i := slices.IndexFunc(list, func(v *T) bool { return key(v) == k })
		if i < 0 {
			return nil
		}
		return list[i]
	}
	for _, v := range before {
		c = append(c, cluster.Change[T]{Old: v, New: find(after, key(v))})
	}
	for _, v := range after {
		if find(before, key(v)) == nil {
			c = append(c, cluster.Change[T]{New: v})
		}
	}
	return c
}

func checkPackets(t *testing.T, w *scenarios.World, s *scenarios.Scenario, n *scenarios.Node, snap *cluster.ServiceSnapshot,
	set Settings, m *Model) {
	t.Helper()
	for _, p := range s.Packets {
		asked, err := w.Ask(p)
		if err != nil {
			t.Fatal(err)
		}
		if asked.Node.Name != n.Name {
			continue
		}
		protocol := cluster.TCP
		if p.Protocol != "" {
			var ok bool
			if protocol, ok = cluster.ParseProtocol(p.Protocol); !ok {
				t.Fatalf("%+v: no such protocol", p)
			}
		}
		packet := gen.ServicePacket{Protocol: protocol, Src: asked.Src, Dst: asked.Dst, Port: p.Port, FromNode: asked.FromNode}
		want := p.Expected()
		if got := w.Line(oracle.Judge(snap, oracle.Settings(set), oracle.Packet(packet))); got != want {
			t.Errorf("%+v: the oracle says %s, want %s", p, got, want)
		}
		answer := judge(m, packet)
		answer.Sticky = affinity(m, packet, answer, p.Sticky)
		if got := w.Line(answer); got != want {
			t.Errorf("%+v: the program says %s, want %s\n%s", p, got, want, m.Program(inet.FamilyOf(asked.Dst)))
		}
	}
}

// affinity returns the seconds if the client comes back for so long, and not a second longer.
func affinity(m *Model, p gen.ServicePacket, a oracle.Answer, seconds uint32) uint32 {
	if a.Verdict != oracle.Forward || seconds == 0 {
		return a.Sticky
	}
	prog := m.Program(inet.FamilyOf(p.Dst))
	packet := program.Packet{Protocol: inet.Protocol(p.Protocol), Src: p.Src, Dst: p.Dst, DstPort: p.Port,
		FromNode: p.FromNode}
	_, memory := program.Eval(prog, packet, program.Memory{}, func(int) int { return 0 })
	free := func(at uint32) (chosen bool) {
		packet.At = program.Seconds(at)
		program.Eval(prog, packet, memory, func(int) int { chosen = true; return 0 })
		return chosen
	}
	if free(seconds-1) || !free(seconds) {
		return 0
	}
	return seconds
}

func compareFound(t *testing.T, s *scenarios.Scenario, found []cluster.Diagnostic) {
	t.Helper()
	var lines []string
	for _, d := range found {
		if d.Cure == "" {
			t.Errorf("no cure: %s", d)
		}
		lines = append(lines, d.String())
	}
	for _, part := range s.Findings {
		i := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, part) })
		if i < 0 {
			t.Errorf("nothing found like %q", part)
			continue
		}
		lines = slices.Delete(lines, i, i+1)
	}
	for _, l := range lines {
		t.Errorf("also found %s", l)
	}
}

func checkHealthPorts(t *testing.T, s *scenarios.Scenario, n *scenarios.Node, m *Model) {
	t.Helper()
	var want []Health
	for _, h := range s.Health {
		if h.At == n.Name {
			want = append(want, Health{h.Port, h.Service, h.Ready})
		}
	}
	if !slices.Equal(m.Health, want) {
		t.Errorf("%s answers health checks %v, want %v", n.Name, m.Health, want)
	}
}

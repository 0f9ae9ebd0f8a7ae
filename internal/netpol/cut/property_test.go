// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

func equal(a, b Change) bool {
	return slices.Equal(a.Denied, b.Denied) && slices.Equal(a.Shrunk, b.Shrunk) && slices.Equal(a.Added, b.Added) &&
		slices.Equal(a.Left, b.Left) && slices.Equal(a.Moved, b.Moved)
}

func compiled(s *cluster.Snapshot) *program.Program {
	return compile.Program(policy.Resolve(s, "one"), compile.Options{})
}

func nodeAddrs() []netip.Addr {
	return []netip.Addr{gen.NodeAddr("one", true), gen.NodeAddr("one", false)}
}

// flows are all between the pods of the program, the node, and some others.
func flows(p *program.Program) (list []program.Flow) {
	addrs := append(nodeAddrs(), addr("10.0.0.3"), addr("fd10::3"), addr("198.51.100.7"), addr("2001:db8::7"))
	for _, pod := range p.Pods {
		addrs = append(addrs, pod.Addr)
	}
	for _, src := range addrs {
		for _, dst := range addrs {
			f := program.Flow{Src: src, Dst: dst, FromNode: slices.Contains(nodeAddrs(), src),
				ToNode: slices.Contains(nodeAddrs(), dst)}
			if src.Is4() != dst.Is4() || f.FromNode && f.ToNode {
				continue
			}
			for _, f.Protocol = range []inet.Protocol{inet.TCP, inet.UDP, inet.SCTP} {
				for _, f.DstPort = range []uint16{53, 80, 81, 443, 8080} {
					list = append(list, f)
				}
			}
			f.Protocol, f.DstPort = 47, 0
			list = append(list, f)
		}
	}
	return list
}

// The model: ask the whole program about the first packet.
func TestAJudgeSaysWhatTheProgramSaysOfTheFirstPacket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := compiled(gen.Snapshot(t))
		j := NewJudge(p, nodeAddrs(), nil)
		for _, f := range flows(p) {
			e := plain(f.Protocol, f.Src, 40000, f.Dst, f.DstPort)
			c, denied := j.Judge(&e)
			if want := program.Eval(p, f) == program.Drop; denied != want {
				t.Fatalf("%+v: cut %t, the program wants %t\n%s", f, denied, want, p)
			}
			if denied && c.Flow != f {
				t.Fatalf("the cut flow is %+v, want %+v", c.Flow, f)
			}
			picked := pickedUp(e)
			turned := program.Flow{Protocol: f.Protocol, Src: f.Dst, Dst: f.Src, DstPort: 40000, FromNode: f.ToNode,
				ToNode: f.FromNode}
			c, denied = j.Judge(&picked)
			if allowed := program.Eval(p, f) == program.Accept; denied && allowed && f.DstPort < ephemeral {
				t.Fatalf("%+v was picked up as it began and is cut although it is allowed: %+v", f, c)
			}
			if !denied && program.Eval(p, f) == program.Drop && program.Eval(p, turned) == program.Drop {
				t.Fatalf("%+v is denied both ways and goes on", f)
			}
		}
	})
}

// changed returns the programs before and after up to three changes of a cluster,
// and the cluster.
func changed(t *rapid.T) (before, now *program.Program, s *cluster.Store) {
	s = cluster.NewStore()
	gen.Fill(t, s)
	before = compiled(s.Snapshot())
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		s.Update(gen.Change(t))
	}
	return before, compiled(s.Snapshot()), s
}

// No connection that was allowed and is denied now is overlooked.
func TestAChangeTouchesEveryConnectionThatItDenies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, now, _ := changed(t)
		change := Compare(before, now)
		touched := change.Touched()
		if !slices.IsSortedFunc(touched, netip.Addr.Compare) ||
			len(slices.Compact(slices.Clone(touched))) != len(touched) {
			t.Fatalf("touched are %v", touched)
		}
		for _, f := range flows(before) {
			if program.Eval(before, f) == program.Drop || program.Eval(now, f) == program.Accept {
				continue
			}
			if !slices.Contains(touched, f.Src) && !slices.Contains(touched, f.Dst) {
				t.Fatalf("%+v is denied now, and the change is %+v\nbefore:\n%s\nnow:\n%s", f, change, before, now)
			}
		}
		if c := Compare(now, now); !c.None() {
			t.Fatalf("the same program twice is a change: %+v", c)
		}
	})
}

// No connection of which two programs say something different is overlooked, and the
// same program twice does not differ.
func TestEveryDifferentVerdictIsOfAnAddressThatDiffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, now, s := changed(t)
		differ := Differing(before, now)
		for _, f := range slices.Concat(flows(before), flows(now)) {
			if program.Eval(before, f) != program.Eval(now, f) && !differ[f.Src] && !differ[f.Dst] {
				t.Fatalf("of %+v is said something else, and only %v differ\nbefore:\n%s\nnow:\n%s", f, differ, before,
					now)
			}
		}
		if d := Differing(now, compiled(s.Snapshot())); len(d) > 0 {
			t.Fatalf("the same program twice differs at %v", d)
		}
	})
}

func TestWhatDiffers(t *testing.T) {
	tests := []struct {
		name   string
		change func(*program.Program)
		want   []netip.Addr
	}{
		{"nothing", func(*program.Program) {}, nil},
		{"a set gets a member", func(p *program.Program) {
			p.Sets[0].Elements = p.Sets[0].Elements.With(inet.Element{Addr: stranger})
		}, []netip.Addr{web}},
		{"a set loses a member", func(p *program.Program) { p.Sets[0].Elements = inet.Elements{} }, []netip.Addr{web}},
		{"a set is gone", func(p *program.Program) { p.Sets = nil }, []netip.Addr{web}},
		{"a pod is not isolated any more", func(p *program.Program) { p.Pods[0].Ingress = "" }, []netip.Addr{web}},
		{"a chain is gone", func(p *program.Program) { p.Chains = p.Chains[1:] }, []netip.Addr{jail}},
		{"other rules under the same name", func(p *program.Program) {
			p.Chains[0] = &program.Chain{Name: "egress4-jail", Direction: program.Egress, Rules: []program.Rule{{}}}
		}, []netip.Addr{jail}},
		{"a pod is gone", func(p *program.Program) { p.Pods = p.Pods[1:] }, []netip.Addr{web}},
		{"a pod came", func(p *program.Program) { p.Pods = append(p.Pods, program.Pod{Addr: addr("fd00::2")}) },
			[]netip.Addr{addr("fd00::2")}},
		{"an address has another pod", func(p *program.Program) { p.Pods[2].Name = "shop/next" }, []netip.Addr{open}},
	}
	for _, tt := range tests {
		now := sampleProgram()
		tt.change(now)
		if got := slices.SortedFunc(maps.Keys(Differing(sampleProgram(), now)), netip.Addr.Compare); !slices.Equal(got,
			tt.want) {
			t.Errorf("%s: %v differ, want %v", tt.name, got, tt.want)
		}
	}
}

func BenchmarkJudgeOfEntriesOfOthers(b *testing.B) {
	j := NewJudge(sampleProgram(), []netip.Addr{own}, nil)
	e := plain(inet.TCP, peer, 40000, stranger, 80)
	for b.Loop() {
		if _, denied := j.Judge(&e); denied {
			b.Fatal("denied")
		}
	}
}

func BenchmarkJudgeOfAnIsolatedPod(b *testing.B) {
	j := NewJudge(sampleProgram(), []netip.Addr{own}, nil)
	e := plain(inet.TCP, peer, 40000, web, 80)
	for b.Loop() {
		if _, denied := j.Judge(&e); denied {
			b.Fatal("denied")
		}
	}
}

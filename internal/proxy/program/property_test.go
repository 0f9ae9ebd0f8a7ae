// SPDX-License-Identifier: Apache-2.0

package program_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/proxy/program"
)

func drawProgram(t *rapid.T) *program.Program {
	return genproxy.Program(t, rapid.SampledFrom(inet.Families[:]).Draw(t, "family"))
}

// A packet is forwarded to backends of its front's pick only, and every one of them is met.
func TestEveryBackendOfAPickIsMetAndNoOther(t *testing.T) {
	met := map[program.Fate]int{}
	rapid.Check(t, func(t *rapid.T) {
		p := drawProgram(t)
		packet := genproxy.Packet(t, p)
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		seen := map[program.Backend]bool{}
		count := 1
		for i := 0; i < count; i++ {
			o, _ := program.Eval(p, packet, program.Memory{}, func(n int) int { count = n; return i })
			met[o.Fate]++
			if o.Fate == program.Forwarded {
				seen[o.Backend] = true
			} else if o.Backend != (program.Backend{}) || o.Masqueraded {
				t.Fatalf("%s has a backend or is masqueraded: %+v", o, o)
			}
		}
		f := program.Front{Addr: packet.Dst, Protocol: packet.Protocol, Port: packet.DstPort}
		r, ok := p.Route(f)
		if node := slices.Contains(p.NodeAddresses, packet.Dst); node && !ok {
			r, ok = p.Route(program.Front{Protocol: packet.Protocol, Port: packet.DstPort})
		}
		if len(seen) == 0 {
			return
		}
		want := p.Backends(r.Front, p.PickOf(r, packet))
		if !ok || len(want) != len(seen) || slices.ContainsFunc(want, func(b program.Backend) bool { return !seen[b] }) {
			t.Fatalf("met %v, want %v", seen, want)
		}
	})
	for f := program.Dropped; f <= program.NotOurs; f++ {
		if met[f] == 0 {
			t.Errorf("no packet is %s", f)
		}
	}
}

// What the memory holds never leads to a backend that the pick has not, and a client that comes
// back in time meets the same one.
func TestMemoryKeepsToThePick(t *testing.T) {
	kept := 0
	rapid.Check(t, func(t *rapid.T) {
		var m program.Memory
		last := map[string]program.Outcome{}
		p := drawProgram(t)
		packets := []program.Packet{genproxy.Packet(t, p), genproxy.Packet(t, p)}
		for at := range program.Seconds(20) {
			if rapid.IntRange(0, 3).Draw(t, "another program") == 0 {
				p, last = genproxy.Change(t, p), map[string]program.Outcome{}
			}
			packet := rapid.SampledFrom(packets).Draw(t, "packet")
			packet.At = at
			var o program.Outcome
			o, m = program.Eval(p, packet, m, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") })
			r, ok := p.Route(program.Front{Addr: packet.Dst, Protocol: packet.Protocol, Port: packet.DstPort})
			if o.Fate != program.Forwarded || !ok {
				continue
			}
			if !slices.Contains(p.Backends(r.Front, p.PickOf(r, packet)), o.Backend) {
				t.Fatalf("%s is not in the pick", o)
			}
			key := fmt.Sprint(packet.Src, r.Front, packet.FromNode)
			if before, ok := last[key]; ok && r.Sticky > 20 && before != o {
				t.Fatalf("the client met %s, then %s", before, o)
			}
			if r.Sticky > 0 {
				kept++
			}
			last[key] = o
		}
	})
	if kept == 0 {
		t.Error("no client was remembered")
	}
}

// Two programs have the same text exactly if they have the same parts.
func TestTextTellsProgramsApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawProgram(t)
		b := a
		for range rapid.IntRange(0, 2).Draw(t, "changes") {
			b = genproxy.Change(t, b)
		}
		same := a.Routes.Len() == b.Routes.Len() && a.Slots.Len() == b.Slots.Len() && a.Loops.Len() == b.Loops.Len() &&
			a.ClusterAddresses.Len() == b.ClusterAddresses.Len() && slices.Equal(a.ServiceRanges, b.ServiceRanges) &&
			slices.Equal(a.NodeAddresses, b.NodeAddresses) && slices.Equal(a.ClusterPods, b.ClusterPods) &&
			slices.Equal(a.NodePods, b.NodePods) && reflect.DeepEqual(a.Admissions, b.Admissions)
		for r := range a.Routes.All() {
			same = same && b.Routes.Has(r)
		}
		for s := range a.Slots.All() {
			same = same && b.Slots.Has(s)
		}
		for e := range a.Loops.All() {
			same = same && b.Loops.Has(e)
		}
		for e := range a.ClusterAddresses.All() {
			same = same && b.ClusterAddresses.Has(e)
		}
		if got := a.String() == b.String(); got != same {
			t.Fatalf("same text: %t, same parts: %t\n%s\n%s", got, same, a, b)
		}
	})
}

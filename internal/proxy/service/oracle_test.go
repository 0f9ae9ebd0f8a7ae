// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/program"
)

// judge asks the interpreter for everything that may happen to a packet, in the oracle's words.
func judge(m *Model, p gen.ServicePacket) oracle.Answer {
	prog := m.Program(inet.FamilyOf(p.Dst))
	packet := program.Packet{Protocol: inet.Protocol(p.Protocol), Src: p.Src, Dst: p.Dst, DstPort: p.Port,
		FromNode: p.FromNode}
	var a oracle.Answer
	for i, count := 0, 1; i < count; i++ {
		out, memory := program.Eval(prog, packet, program.Memory{}, func(n int) int { count = n; return i })
		a.Verdict = map[program.Fate]oracle.Verdict{program.NotOurs: oracle.NotOurs, program.Forwarded: oracle.Forward,
			program.Rejected: oracle.Reject, program.Dropped: oracle.Drop}[out.Fate]
		if out.Fate != program.Forwarded {
			continue
		}
		a.Backends = append(a.Backends, oracle.Backend{To: netip.AddrPortFrom(out.Backend.Addr, out.Backend.Port),
			SourceKept: !out.Masqueraded})
		a.Sticky = remembered(prog, packet, memory, out.Backend)
	}
	slices.SortFunc(a.Backends, func(a, b oracle.Backend) int { return a.To.Compare(b.To) })
	return a
}

// remembered returns for how many seconds, 3 at most, the client comes back to a backend whatever the
// choice is.
func remembered(prog *program.Program, packet program.Packet, m program.Memory, to program.Backend) uint32 {
	for at := program.Seconds(0); at < 3; at++ {
		packet.At = at
		random := false
		out, _ := program.Eval(prog, packet, m, func(int) int { random = true; return 0 })
		if random || out.Backend != to {
			return uint32(at)
		}
	}
	return 3
}

func same(a, b oracle.Answer) bool {
	return a.Verdict == b.Verdict && slices.Equal(a.Backends, b.Backends) && a.Sticky == b.Sticky
}

// world returns a random cluster.
func world(t *rapid.T) *gen.Services {
	w := &gen.Services{}
	for range rapid.SampledFrom([]int{40, 30, 20, 10}).Draw(t, "steps") {
		w.Change(t)
	}
	return w
}

func TestTheOracleAgreesWithThePrograms(t *testing.T) {
	seen := map[oracle.Verdict]int{}
	enough := func() bool {
		return min(seen[oracle.NotOurs], seen[oracle.Forward], seen[oracle.Reject], seen[oracle.Drop]) >= 100
	}
	gen.CheckUntil(t, enough, func(t *rapid.T) {
		set, snap := settings(t), world(t).Snapshot(t)
		m, _ := Resolve(snap, set)
		for _, p := range gen.Packets(t) {
			want := oracle.Judge(snap, oracle.Settings(set), oracle.Packet(p))
			if got := judge(m, p); !same(got, want) {
				t.Fatalf("%+v\nprogram %+v\noracle  %+v\n%s%s", p, got, want, m.IPv4, m.IPv6)
			}
			seen[want.Verdict]++
		}
		checkHealth(t, snap, set, m)
	})
}

func checkHealth(t *rapid.T, snap *cluster.ServiceSnapshot, set Settings, m *Model) {
	want := map[string]bool{}
	for _, s := range snap.Services {
		if x := s.External; x != nil && x.Local && x.HealthPort != 0 {
			ready := oracle.Ready(snap, oracle.Settings(set), s.Key)
			want[fmt.Sprint(Health{x.HealthPort, s.Key, ready})] = true
		}
	}
	for _, h := range m.Health {
		if !want[fmt.Sprint(h)] {
			t.Fatalf("%v, want %v", m.Health, want)
		}
	}
	if len(m.Health) != len(want) {
		t.Fatalf("%v, want %v", m.Health, want)
	}
}

// Who calls an address and port calls the Service that the oracle says.
func TestTheOracleAgreesWithTheNames(t *testing.T) {
	named, unnamed, nodePorts := 0, 0, 0
	enough := func() bool { return min(named, unnamed, nodePorts) >= 100 }
	gen.CheckUntil(t, enough, func(t *rapid.T) {
		set, w := settings(t), &gen.Services{}
		x := NewIndex(set)
		for range rapid.SampledFrom([]int{40, 30, 20, 10}).Draw(t, "steps") {
			if err := x.Apply(context.Background(), w.Change(t)); err != nil {
				t.Fatal(err)
			}
		}
		snap := w.Snapshot(t)
		for _, p := range gen.Packets(t) {
			want := oracle.Judge(snap, oracle.Settings(set), oracle.Packet(p))
			key, port, ok := x.Named(program.Front{Addr: p.Dst, Protocol: inet.Protocol(p.Protocol), Port: p.Port})
			if key != want.Service || port != want.ServicePort || ok != (want.Service != cluster.Key{}) {
				t.Fatalf("%+v: %s:%d, %t; the oracle says %s:%d", p, key, port, ok, want.Service, want.ServicePort)
			}
			for _, b := range want.Backends {
				if !leads(x, want.Service, want.ServicePort, p.Protocol, b.To) {
					t.Fatalf("%+v: %s leads to %s, no slot of it does", p, want.Service, b.To)
				}
			}
			switch {
			case !ok:
				unnamed++
			case slices.Contains(set.NodePortAddresses, p.Dst):
				nodePorts++
			default:
				named++
			}
		}
	})
}

// leads reports whether a slot of a front of the Service's port has the backend.
func leads(x *Index, service cluster.Key, port uint16, protocol cluster.Protocol, to netip.AddrPort) bool {
	for _, set := range x.Slots() {
		for s := range set.All() {
			key, number, ok := x.Owner(s.Front, inet.FamilyOf(to.Addr()))
			if ok && key == service && number == port && s.Front.Protocol == inet.Protocol(protocol) &&
				s.Addr == to.Addr() && s.Port == to.Port() {
				return true
			}
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package ipvs_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
)

// outcomes returns all that may happen to a packet.
func outcomes(p *program.Program, packet program.Packet) map[program.Outcome]bool {
	all, count := map[program.Outcome]bool{}, 1
	for i := 0; i < count; i++ {
		o, _ := program.Eval(p, packet, program.Memory{}, func(n int) int { count = n; return i })
		all[o] = true
	}
	return all
}

// planned returns the same of a plan: what the tables leave goes to any destination of the virtual service at
// the packet's destination.
func planned(plan ipvs.Plan, packet program.Packet) (map[program.Outcome]bool, error) {
	all := map[program.Outcome]bool{}
	for o := range outcomes(plan.Tables, packet) {
		if o.Fate != program.Left {
			all[o] = true
			continue
		}
		v, ok := plan.Virtual[kernel.ID{Addr: packet.Dst, Protocol: packet.Protocol, Port: packet.DstPort}]
		if !ok || len(v.Backends) == 0 {
			return nil, fmt.Errorf("%v is left, and there is no virtual service with destinations", packet)
		}
		for _, b := range v.Backends {
			loop := packet.Src == b.Addr && plan.Tables.Loops.Has(inet.Element{Addr: b.Addr})
			all[program.Outcome{Fate: program.Forwarded, Backend: program.Backend(b), Masqueraded: o.Masqueraded || loop}] = true
		}
	}
	return all, nil
}

// drawLacks draws what the kernel lacks for a program.
func drawLacks(t *rapid.T, p *program.Program) ipvs.Lacks {
	l := ipvs.Lacks{Virtual: map[kernel.ID]bool{}}
	l.Schedulers = rapid.SampledFrom([][]string{nil, nil, {"mh"}, {"lc", "mh"}}).Draw(t, "missing")
	for _, id := range slices.SortedFunc(maps.Keys(ipvs.Of(p).Virtual), kernel.ID.Compare) {
		if rapid.IntRange(0, 7).Draw(t, "refused") == 0 {
			l.Virtual[id] = true
		}
	}
	return l
}

// Tables and virtual services together do what the program says, whatever its history.
func TestAPlanMeansWhatItsProgramMeans(t *testing.T) {
	left, inside := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := genproxy.Program(t, rapid.SampledFrom(inet.Families[:]).Draw(t, "family"))
		var planner ipvs.Planner
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			lacks := drawLacks(t, p)
			plan := planner.Next(p, lacks)
			for id := range lacks.Virtual {
				if _, has := plan.Virtual[id]; has {
					t.Fatalf("%s is planned, and the kernel does not take it", id)
				}
			}
			if err := plan.Tables.Check(); err != nil {
				t.Fatalf("the program of the tables: %v\n%s", err, plan.Tables)
			}
			for range 20 {
				packet := genproxy.Packet(t, p)
				want := outcomes(p, packet)
				got, err := planned(plan, packet)
				if err != nil {
					t.Fatal(err)
				}
				if !maps.Equal(want, got) {
					t.Fatalf("%+v: got %v, want %v\n%s", packet, got, want, p)
				}
				for o := range outcomes(plan.Tables, packet) {
					if o.Fate == program.Left {
						left++
					}
					if o.Fate == program.Forwarded {
						inside++
					}
				}
			}
			p = genproxy.Change(t, p)
		}
	})
	if left == 0 || inside == 0 {
		t.Errorf("%d packets were left to IPVS, and %d to the tables", left, inside)
	}
}

// A planner that has seen a history says the same as one that has not, and names every ID that differs.
func TestHistoriesLeadToTheSamePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genproxy.Program(t, rapid.SampledFrom(inet.Families[:]).Draw(t, "family"))
		var planner ipvs.Planner
		before := map[kernel.ID]ipvs.Virtual{}
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			lacks := drawLacks(t, p)
			got, want := planner.Next(p, lacks), new(ipvs.Planner).Next(p, lacks)
			if diff := cmp.Diff(want.Tables.String(), got.Tables.String()); diff != "" {
				t.Fatalf("tables (-without +with a history):\n%s", diff)
			}
			if diff := cmp.Diff(want.Virtual, got.Virtual, cmpopts.EquateComparable(kernel.ID{}, kernel.Backend{},
				kernel.Service{}, program.Front{})); diff != "" {
				t.Fatalf("virtual services (-without +with a history):\n%s", diff)
			}
			for id := range union(before, got.Virtual) {
				a, b := before[id], got.Virtual[id]
				same := a.Service == b.Service && slices.Equal(a.Backends, b.Backends)
				if !same && !slices.Contains(got.Changed, id) {
					t.Fatalf("%s differs and is not among %v", id, got.Changed)
				}
			}
			for n := range 6 {
				a := genproxy.Addr(p.Family, 0, n)
				if got.Local(a) != want.Local(a) || got.Local(a) != has(p, got, a) {
					t.Fatalf("%s is local: %v, without a history %v", a, got.Local(a), want.Local(a))
				}
			}
			before = maps.Clone(got.Virtual)
			p = genproxy.Change(t, p)
			if rapid.IntRange(0, 4).Draw(t, "the node moves") == 0 {
				next := *p
				next.NodeAddresses = nil
				for n := range rapid.IntRange(0, 2).Draw(t, "addresses") {
					next.NodeAddresses = append(next.NodeAddresses, genproxy.Addr(p.Family, 1, n))
				}
				p = &next
			}
		}
	})
}

// has reports whether a virtual service that is not a node port has an address.
func has(p *program.Program, plan ipvs.Plan, a netip.Addr) bool {
	for id := range plan.Virtual {
		if id.Addr == a && ipvs.Front(p, id).Addr.IsValid() {
			return true
		}
	}
	return false
}

func union[K comparable, A, B any](a map[K]A, b map[K]B) map[K]bool {
	all := map[K]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

// IPVS serves everybody where all have the same endpoints, and only clients from outside where those differ.
func TestWhoServesWhom(t *testing.T) {
	front := program.Front{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.TCP, Port: 80}
	both, first := program.Pick{Count: 2, Masquerade: program.Strangers}, program.Pick{Count: 1}
	reject := program.Pick{Otherwise: program.Reject}
	always := both
	always.Masquerade = program.Always
	for _, tt := range []struct {
		name            string
		inside, outside program.Pick
		tables          string // how they answer
		backends        int    // of IPVS
	}{
		{"the same", both, both, "inside leave masquerade strangers outside leave masquerade strangers", 2},
		{"the same but for the source", both, always, "inside leave masquerade strangers outside leave masquerade", 2},
		{"different ones", both, first, "inside 0+2 masquerade strangers outside leave", 1},
		{"inside none", reject, first, "inside reject outside leave", 1},
		{"outside none", both, reject, "inside leave masquerade strangers outside reject", 2},
		{"none", reject, program.Pick{}, "inside reject outside drop", 0},
	} {
		p := &program.Program{Family: inet.IPv4}
		p.Routes = p.Routes.With(program.Route{Front: front, Inside: tt.inside, Outside: tt.outside})
		for i := range 2 {
			p.Slots = p.Slots.With(program.Slot{Front: front, Number: uint16(i),
				Backend: program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, i), Port: 8080}})
		}
		plan := ipvs.Of(p)
		r, _ := plan.Tables.Route(front)
		if got := fmt.Sprintf("inside %s outside %s", r.Inside, r.Outside); got != tt.tables {
			t.Errorf("%s: the tables: got %s, want %s", tt.name, got, tt.tables)
		}
		v := plan.Virtual[kernel.ID{Addr: front.Addr, Protocol: front.Protocol, Port: front.Port}]
		if len(v.Backends) != tt.backends || len(plan.Virtual) > 1 {
			t.Errorf("%s: IPVS: got %v, want %d", tt.name, plan.Virtual, tt.backends)
		}
	}
}

// What Services ask for arrives in the kernel's words.
func TestSchedulersAndAffinity(t *testing.T) {
	front := program.Front{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.TCP, Port: 80}
	pick := program.Pick{Count: 1}
	for _, tt := range []struct {
		name    string
		route   program.Route
		missing []string
		want    string
	}{
		{"nothing", program.Route{}, nil, "rr flags 0x50570000 timeout 0"},
		{"affinity", program.Route{Sticky: 100}, nil, "rr flags 0x50570001 timeout 100"},
		{"least connection", program.Route{Schedule: program.Schedule{Scheduler: program.LeastConnection}}, nil, "lc flags 0x50570000 timeout 0"},
		{"options", program.Route{Schedule: program.Schedule{Scheduler: program.Maglev, Options: program.Fallback | program.ByPort}}, nil,
			"mh flags 0x50570018 timeout 0"},
		{"all of it", program.Route{Sticky: 9, Schedule: program.Schedule{Scheduler: program.SourceHash, Options: program.Third}}, nil,
			"sh flags 0x50570029 timeout 9"},
		{"one that the kernel lacks", program.Route{Sticky: 9, Schedule: program.Schedule{Scheduler: program.Maglev, Options: program.Fallback}},
			[]string{"mh"}, "rr flags 0x50570001 timeout 9"},
		// Else clients are refused that belong to a destination that drains.
		{"source hash", program.Route{Schedule: program.Schedule{Scheduler: program.SourceHash}}, nil, "sh flags 0x50570008 timeout 0"},
		{"Maglev", program.Route{Schedule: program.Schedule{Scheduler: program.Maglev}}, nil, "mh flags 0x50570008 timeout 0"},
		{"not the one that it lacks", program.Route{Schedule: program.Schedule{Scheduler: program.DestinationHash}}, []string{"mh"},
			"dh flags 0x50570000 timeout 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.route.Front, tt.route.Inside, tt.route.Outside = front, pick, pick
			p := &program.Program{Family: inet.IPv4}
			p.Routes = p.Routes.With(tt.route)
			p.Slots = p.Slots.With(program.Slot{Front: front, Sticky: tt.route.Sticky,
				Backend: program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, 1), Port: 8080}})
			plan := new(ipvs.Planner).Next(p, ipvs.Lacks{Schedulers: tt.missing})
			id := kernel.ID{Addr: front.Addr, Protocol: front.Protocol, Port: front.Port}
			s := plan.Virtual[id].Service
			if got := fmt.Sprintf("%s flags %#x timeout %d", s.Scheduler, uint32(s.Flags), s.Timeout); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if !ipvs.Own(s) {
				t.Error("it is not our own")
			}
		})
	}
}

// When the kernel lacks something, only what it changes is a change.
func TestWhatTheKernelLacksChangesNothingElse(t *testing.T) {
	p := &program.Program{Family: inet.IPv4}
	id := func(n int) kernel.ID {
		return kernel.ID{Addr: genproxy.Addr(inet.IPv4, 0, n), Protocol: inet.TCP, Port: 80}
	}
	for n := range 3 {
		front := program.Front{Addr: id(n).Addr, Protocol: inet.TCP, Port: 80}
		r := program.Route{Front: front, Inside: program.Pick{Count: 1}, Outside: program.Pick{Count: 1}}
		if n == 2 {
			r.Schedule.Scheduler = program.Maglev
		}
		p.Routes = p.Routes.With(r)
		p.Slots = p.Slots.With(program.Slot{Front: front, Backend: program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, n), Port: 80}})
	}
	var planner ipvs.Planner
	for i, step := range []struct {
		lacks ipvs.Lacks
		want  []kernel.ID
	}{
		{ipvs.Lacks{}, []kernel.ID{id(0), id(1), id(2)}},
		{ipvs.Lacks{Schedulers: []string{"mh"}}, []kernel.ID{id(2)}},
		{ipvs.Lacks{Schedulers: []string{"mh"}, Virtual: map[kernel.ID]bool{id(1): true}}, []kernel.ID{id(1)}},
		{ipvs.Lacks{}, []kernel.ID{id(1), id(2)}},
	} {
		if got := planner.Next(p, step.lacks).Changed; !slices.Equal(got, step.want) {
			t.Errorf("step %d: %v changed, want %v", i, got, step.want)
		}
	}
}

func TestOthersAreNotOurs(t *testing.T) {
	for _, s := range []kernel.Service{{}, {Flags: kernel.Persistent}, {Mark: 1, Flags: 0x50570000}, {Flags: 0x50560000},
		{Flags: 0xd0570000}} {
		if ipvs.Own(s) {
			t.Errorf("%+v is taken for our own", s)
		}
	}
}

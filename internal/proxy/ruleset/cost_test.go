// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"

	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/baseline"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// wire is a kernel that takes everything and counts it.
type wire struct {
	conn            *nft.Conn
	messages, bytes int
}

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{}
	nl, err := nftables.New(nftables.WithTestDial(func(list []netlink.Message) ([]netlink.Message, error) {
		for _, m := range list {
			w.messages++
			w.bytes += len(m.Data) + 16
		}
		return nil, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	w.conn = nft.Over(nl, ruleset.Table(inet.IPv4))
	return w
}

// the addresses of the n-th Service, and of its backends.
func frontOf(n int) program.Front {
	return program.Front{Addr: netip.AddrFrom4([4]byte{10, 96 + byte(n>>16), byte(n >> 8), byte(n)}), Protocol: inet.TCP,
		Port: 80}
}

func backendOf(n, i int) program.Backend {
	return program.Backend{Addr: netip.AddrFrom4([4]byte{10, 128 + byte(i)<<1 + byte(n>>16), byte(n >> 8), byte(n)}),
		Port: 8080}
}

// service adds a Service with some backends.
func service(p *program.Program, n, backends int, sticky program.Seconds) *program.Program {
	next, f := *p, frontOf(n)
	pick := program.Pick{Count: uint16(backends), Masquerade: program.Strangers}
	next.Routes = next.Routes.With(program.Route{Front: f, Inside: pick, Outside: pick, Sticky: sticky})
	for i := range backends {
		next.Slots = next.Slots.With(program.Slot{Front: f, Number: uint16(i), Sticky: sticky, Backend: backendOf(n, i)})
	}
	next.ClusterAddresses = next.ClusterAddresses.With(inet.Element{Addr: f.Addr})
	return &next
}

// gone takes a Service away.
func gone(p *program.Program, n int) *program.Program {
	next, f := *p, frontOf(n)
	r, _ := p.Route(f)
	for i := range r.Inside.Count {
		s, _ := p.Slot(f, i)
		next.Slots = next.Slots.Without(s)
	}
	next.Routes = next.Routes.Without(r)
	next.ClusterAddresses = next.ClusterAddresses.Without(inet.Element{Addr: f.Addr})
	return &next
}

// replaced has another backend in the place of a Service's first one.
func replaced(p *program.Program, n int) *program.Program {
	next := *p
	s, _ := p.Slot(frontOf(n), 0)
	next.Slots = next.Slots.Without(s)
	s.Backend = backendOf(n, 40)
	next.Slots = next.Slots.With(s)
	return &next
}

// special is the number of the first Service that is not like the others; it has as many digits with few as
// with many of them.
const special = 1 << 16

// many has n Services of two backends, one of three and one that is sticky.
func many(n int) *program.Program {
	p := &program.Program{Family: inet.IPv4}
	var routes []program.Route
	var slots []program.Slot
	pick := program.Pick{Count: 2, Masquerade: program.Strangers}
	for i := range n {
		f := frontOf(i)
		routes = append(routes, program.Route{Front: f, Inside: pick, Outside: pick})
		for number := range 2 {
			slots = append(slots, program.Slot{Front: f, Number: uint16(number), Backend: backendOf(i, number)})
		}
	}
	p.Routes, p.Slots = immutable.Of(routes...), immutable.Of(slots...)
	for _, r := range routes {
		p.ClusterAddresses = p.ClusterAddresses.With(inet.Element{Addr: r.Front.Addr})
	}
	return service(service(p, special, 3, 0), special+1, 3, 60)
}

type costStep struct {
	name   string
	change func(p *program.Program) *program.Program
}

// costSteps are changes that follow each other.
func costSteps() []costStep {
	return []costStep{
		{"nothing", func(p *program.Program) *program.Program { return p }},
		{"backend-replaced", func(p *program.Program) *program.Program { return replaced(p, 1) }},
		{"scaled-up", func(p *program.Program) *program.Program { return service(gone(p, 2), 2, 3, 0) }},
		{"scaled-down", func(p *program.Program) *program.Program { return service(gone(p, special), special, 2, 0) }},
		{"service-comes", func(p *program.Program) *program.Program { return service(p, special+2, 2, 0) }},
		{"service-goes", func(p *program.Program) *program.Program { return gone(p, special+2) }},
		{"first-of-a-shape-comes", func(p *program.Program) *program.Program { return service(p, special+3, 7, 0) }},
		{"last-of-a-shape-goes", func(p *program.Program) *program.Program { return gone(p, special+3) }},
		{"sticky-backend-replaced", func(p *program.Program) *program.Program { return replaced(p, special+1) }},
	}
}

// What goes to the kernel for a change depends on the Service alone, not on how many there are, and what it
// costs to find out neither. Rewrite with make golden.
func TestCostsOfServicesDoNotGrow(t *testing.T) {
	costs := map[string]baseline.Cost{}
	const few, lots = 10, 10_000
	sent := map[string][]string{}
	for _, n := range []int{few, lots} {
		p, w := many(n), newWire(t)
		var renderer ruleset.Renderer
		table := renderer.Render(p, ruleset.Settings{})
		for _, step := range costSteps() {
			p = step.change(p)
			old := renderer
			next := renderer.Render(p, ruleset.Settings{})
			ops := nft.Diff(table, next)
			*w = wire{conn: w.conn}
			if err := w.conn.Commit(ops); err != nil {
				t.Fatal(err)
			}
			elements := 0
			for _, op := range ops {
				elements += op.Elements()
			}
			name := fmt.Sprintf("%s/%d/", step.name, n)
			costs[name+"elements"] = baseline.Cost{Count: float64(elements)}
			costs[name+"messages"] = baseline.Cost{Count: float64(w.messages)}
			costs[name+"bytes"] = baseline.Cost{Count: float64(w.bytes)}
			if step.name == "nothing" || step.name == "backend-replaced" {
				before := table
				allocs := testing.AllocsPerRun(10, func() {
					r := old // the maps of what is needed do not change in these steps
					nft.Diff(before, r.Render(p, ruleset.Settings{}))
				})
				costs[name+"allocations"] = baseline.Cost{Count: allocs, Margin: 0.2}
			}
			sent[step.name] = append(sent[step.name], fmt.Sprintf("%d elements, %d messages, %d bytes", elements,
				w.messages, w.bytes))
			table = next
		}
	}
	for name, list := range sent {
		if list[0] != list[1] {
			t.Errorf("%s: with %d Services %s, with %d Services %s", name, few, list[0], lots, list[1])
		}
	}
	one, other := costs["backend-replaced/10/allocations"], costs["backend-replaced/10000/allocations"]
	if other.Count > 1.2*one.Count {
		t.Errorf("a backend is replaced with %.0f allocations among 10 Services, %.0f among 10,000", one.Count,
			other.Count)
	}
	if got := costs["backend-replaced/10000/elements"].Count; got != 2 {
		t.Errorf("a backend is replaced with %.0f elements, want 2", got)
	}
	baseline.Check(t, "costs.txt", costs)
}

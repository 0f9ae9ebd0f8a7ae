// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// restricted has the same Services, which only some clients may use.
func restricted(backends ...int) *service.Model {
	m := model(backends...)
	for _, f := range inet.Families {
		p := m.Program(f)
		p.Admissions = []program.Admission{{Name: "office", Ranges: []netip.Prefix{netip.PrefixFrom(genproxy.Addr(f, 3, 0), 24)}}}
		for r := range p.Routes.All() {
			p.Routes = p.Routes.Without(r)
			r.Admission = "office"
			p.Routes = p.Routes.With(r)
		}
	}
	return m
}

// Destinations that come after the table are put right, too, and counted, but for those that are new or refused.
func TestDriftOfAServiceWithSourceRanges(t *testing.T) {
	s, f := newFakeStage(t)
	m := restricted(1)
	id := kernel.ID{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.TCP, Port: 80}
	drift := func(when string, want int) {
		t.Helper()
		check(t, s.Verify())
		if r := s.apply(m); r.Drift != want {
			t.Errorf("%s: drift %d, want %d", when, r.Drift, want)
		}
	}
	drift("at first", 0)
	take := func() {
		one := f.has[id]
		one.Destinations = nil
		f.has[id] = one
	}
	take()
	drift("a destination was deleted", 1)
	s.holds("after the repair", m)
	drift("after the repair", 0)
	f.refuse = func(o kernel.Op) error {
		if o.Kind == kernel.AddDestination {
			return unix.EINVAL
		}
		return nil
	}
	take()
	drift("it was deleted again, and is refused", 1)
	drift("it is refused again", 0)
	f.refuse = nil
	drift("it is taken", 0)
	s.holds("in the end", m)
	m = restricted(1, 2)
	drift("an endpoint comes", 0)
}

// What a turn whose table failed did not come to is no drift of the next one.
func TestATurnThatWasBrokenOffIsNoDrift(t *testing.T) {
	s, f := newFakeStage(t)
	s.apply(restricted())
	check(t, s.ns.Do(func() error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Apply(ctx, tables.Desired{Model: restricted(1), Own: func(netip.Addr) bool { return false }}); err == nil {
			t.Error("the tables took a change that was called off")
		}
		return nil
	}))
	for id, one := range f.has {
		if len(one.Destinations) > 0 {
			t.Errorf("%s has destinations before its table", id)
		}
	}
	if r := s.apply(restricted(1)); r.Drift != 0 {
		t.Errorf("drift %d", r.Drift)
	}
	s.holds("after the next turn", restricted(1))
}

// Where the kernel refuses a virtual service the tables serve, and no packet to it reaches programs of the node.
func TestWithoutAVirtualServiceTheTablesServe(t *testing.T) {
	s, f := newFakeStage(t)
	web := genproxy.Addr(inet.IPv4, 0, 1)
	refused := func(o kernel.Op) error {
		if o.Kind == kernel.AddService && o.Service.Addr == web {
			return unix.EINVAL
		}
		return nil
	}
	f.refuse = refused
	served := func(when string, m *service.Model, byTables bool) {
		t.Helper()
		s.apply(m)
		found, err := s.routes.list(inet.IPv4)
		check(t, err)
		if _, local := found[web]; local == byTables {
			t.Errorf("%s: the address is the node's: %t", when, local)
		}
		var shown strings.Builder
		check(t, s.ns.Do(func() error { return s.tables.Ruleset(&shown) }))
		if got := strings.Contains(shown.String(), web.String()+" . tcp . 80 . "); got != byTables {
			t.Errorf("%s: the tables have its endpoints: %t\n%s", when, got, shown.String())
		}
		if p := s.Problems(); (len(p) == 1 && strings.Contains(p[0].Text, web.String())) != byTables {
			t.Errorf("%s: problems: %v", when, p)
		}
	}
	served("at first", model(1, 2), true)
	served("after an unrelated change", another(model(1, 2)), true)
	served("after a change of endpoints", model(3), true)
	check(t, s.Verify())
	served("after a verification", model(3), true)
	none := &service.Model{IPv4: &program.Program{Family: inet.IPv4}, IPv6: &program.Program{Family: inet.IPv6}}
	s.apply(none)
	if p := s.Problems(); len(p) > 0 {
		t.Errorf("without Services: %v", p)
	}
	served("when it comes back", model(3), true)
	f.refuse = nil
	check(t, s.Verify())
	served("when the kernel takes it", model(3), false)
	s.holds("when the kernel takes it", model(3))
	f.refuse = refused // a verification of what the kernel has asks for nothing new
	check(t, s.Verify())
	served("when it has it", model(3), false)
}

// Without memory for a virtual service nothing leads to where it should be.
func TestNothingLeadsToAVirtualServiceThatFailed(t *testing.T) {
	s, f := newFakeStage(t)
	f.refuse = func(o kernel.Op) error {
		if o.Kind == kernel.AddService {
			return unix.ENOMEM
		}
		return nil
	}
	check(t, s.ns.Do(func() error {
		if _, err := s.Apply(t.Context(), tables.Desired{Model: model(1), Own: func(netip.Addr) bool { return false }}); err == nil {
			t.Error("no error")
		}
		if found, err := tables.Exist(); err != nil || found {
			t.Errorf("there are tables: %t, %v", found, err)
		}
		return nil
	}))
	if found, err := s.routes.list(inet.IPv4); err != nil || len(found) > 0 {
		t.Errorf("addresses of the node: %v, %v", found, err)
	}
	f.refuse = nil
	s.apply(model(1))
	s.holds("when there is memory", model(1))
}

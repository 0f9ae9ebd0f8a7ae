// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
)

func TestMain(m *testing.M) { entry.Try(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stage is a network namespace with the proxy in it.
type stage struct {
	*Proxy
	t  *testing.T
	ns *netns.NS
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ns := nftrun.Namespace(t)
	s := &stage{t: t, ns: ns}
	s.Proxy = s.open()
	return s
}

// open starts the proxy, as a new process would.
func (s *stage) open() (p *Proxy) {
	s.t.Helper()
	err := s.ns.Do(func() error {
		log := slog.New(slog.DiscardHandler)
		of, err := tables.Open(ruleset.Settings{IPVS: true}, new(nft.Tally), log)
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { check(s.t, of.Close()) })
		p, err = Open(of, Settings{}, log)
		return err
	})
	if errors.Is(err, kernel.ErrNone) && os.Getenv("PODWALL_IPVS") != "true" {
		s.t.Skip("this kernel has no IPVS: run `make vm`")
	}
	check(s.t, err)
	s.t.Cleanup(func() { check(s.t, p.Close()) })
	return p
}

func (s *stage) apply(m *service.Model) (r tables.Report) {
	s.t.Helper()
	check(s.t, s.ns.Do(func() (err error) {
		want := tables.Desired{Model: m, Own: func(netip.Addr) bool { return false }}
		r, err = s.Apply(s.t.Context(), want)
		for err == nil && r.Later > 0 {
			time.Sleep(r.Later)
			var next tables.Report
			next, err = s.Apply(s.t.Context(), want)
			r = r.And(next)
		}
		return err
	}))
	return r
}

// model has a Service at a cluster address and at a node port in both families, with the backends of these
// numbers.
func model(backends ...int) *service.Model {
	one := func(f inet.Family) *program.Program {
		p := &program.Program{Family: f, NodeAddresses: []netip.Addr{genproxy.Addr(f, 1, 0)}}
		for _, front := range []program.Front{{Addr: genproxy.Addr(f, 0, 1), Protocol: inet.TCP, Port: 80},
			{Protocol: inet.TCP, Port: 30080}} {
			pick := program.Pick{Count: uint16(len(backends)), Otherwise: program.Reject}
			p.Routes = p.Routes.With(program.Route{Front: front, Inside: pick, Outside: pick})
			for i, n := range backends {
				p.Slots = p.Slots.With(program.Slot{Front: front, Number: uint16(i),
					Backend: program.Backend{Addr: genproxy.Addr(f, 2, n), Port: 8080}})
			}
		}
		return p
	}
	return &service.Model{IPv4: one(inet.IPv4), IPv6: one(inet.IPv6)}
}

// holds wants the kernel to hold what a model asks for, and other virtual services.
func (s *stage) holds(when string, m *service.Model, others ...kernel.Service) {
	s.t.Helper()
	want, local := others, map[netip.Addr]bool{}
	for _, f := range inet.Families {
		for id, v := range ipvs.Of(m.Program(f)).Virtual {
			want = append(want, v.Service)
			if ipvs.Front(m.Program(f), id).Addr.IsValid() {
				local[id.Addr] = true
			}
		}
	}
	var got []kernel.Service
	list, err := s.conn.List()
	check(s.t, err)
	for _, one := range list {
		got = append(got, one.Service)
	}
	equal := cmpopts.EquateComparable(kernel.Service{}, netip.Addr{})
	slices.SortFunc(want, func(a, b kernel.Service) int { return a.ID.Compare(b.ID) })
	if diff := cmp.Diff(want, got, equal, cmpopts.EquateEmpty()); diff != "" {
		s.t.Errorf("%s: virtual services (-want +got):\n%s", when, diff)
	}
	have := map[netip.Addr]bool{}
	for _, f := range inet.Families {
		some, err := s.routes.list(f)
		check(s.t, err)
		for a := range some {
			have[a] = true
		}
	}
	if diff := cmp.Diff(local, have, equal); diff != "" {
		s.t.Errorf("%s: addresses (-want +got):\n%s", when, diff)
	}
}

// other is a virtual service of another program.
func other(at string) kernel.Service {
	a := netip.MustParseAddrPort(at)
	return kernel.Service{ID: kernel.ID{Addr: a.Addr(), Protocol: inet.TCP, Port: a.Port()}, Scheduler: "wlc"}
}

func (s *stage) do(kind kernel.Kind, o kernel.Service) {
	s.t.Helper()
	check(s.t, s.conn.Do(kernel.Op{Kind: kind, Service: o}))
}

func TestServicesComeAndGo(t *testing.T) {
	s := newStage(t)
	theirs := other("198.51.100.9:80")
	s.do(kernel.AddService, theirs)
	if r := s.apply(model(1, 2)); !r.Full || r.Changes == 0 {
		t.Errorf("the first model: %+v", r)
	}
	s.holds("the first model", model(1, 2), theirs)
	if r := s.apply(model(1, 2)); r != (tables.Report{}) {
		t.Errorf("the same model again: %+v", r)
	}
	// A destination comes and one goes, for two fronts and two families; the tables do not change.
	if r := s.apply(model(1, 3)); r.Changes != 2*2*2 || r.Full {
		t.Errorf("a backend is replaced: %+v", r)
	}
	s.holds("a backend is replaced", model(1, 3), theirs)
	s.apply(model())
	s.holds("no backend is left", model(), theirs)

	s.apply(model(1))
	s.Proxy = s.open() // a new process: what it finds is its own
	s.holds("before a new process", model(1), theirs)
	if r := s.apply(&service.Model{IPv4: &program.Program{Family: inet.IPv4}, IPv6: &program.Program{Family: inet.IPv6}}); r.Drift > 0 {
		t.Errorf("a new process takes its own change for another program's: %+v", r)
	}
	s.holds("all went while no process ran", model(), theirs)
}

// What others change is put right at the next verification, and counted.
func TestWhatOthersChangeIsPutRight(t *testing.T) {
	s := newStage(t)
	m := model(1, 2)
	s.apply(m)
	id := kernel.ID{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.TCP, Port: 80}
	s.do(kernel.DeleteService, kernel.Service{ID: id})
	edited := ipvs.Of(m.IPv6).Virtual[kernel.ID{Addr: genproxy.Addr(inet.IPv6, 0, 1), Protocol: inet.TCP, Port: 80}].Service
	edited.Scheduler = "wlc"
	s.do(kernel.EditService, edited)
	check(t, s.routes.remove(id.Addr))
	check(t, s.Verify())
	if r := s.apply(m); r.Drift != 2 || !r.Full {
		t.Errorf("two virtual services were changed: %+v", r)
	}
	s.holds("after the repair", m)
	check(t, s.Verify())
	if r := s.apply(m); r.Drift != 0 || r.Changes != 0 {
		t.Errorf("nothing was changed: %+v", r)
	}
}

// Another program's virtual service in the place of ours stays, and is a problem, until it is gone.
func TestAPlaceThatIsTaken(t *testing.T) {
	t.Run("in the kernel", func(t *testing.T) { placeThatIsTaken(t, newStage(t)) })
	t.Run("without IPVS", func(t *testing.T) {
		s, _ := newFakeStage(t)
		placeThatIsTaken(t, s)
	})
}

func placeThatIsTaken(t *testing.T, s *stage) {
	t.Helper()
	m := model(1)
	theirs := other("10.0.0.1:80")
	s.do(kernel.AddService, theirs)
	s.apply(m)
	list, err := s.conn.List()
	check(t, err)
	if !slices.ContainsFunc(list, func(l kernel.Listed) bool { return l.Service == theirs && len(l.Destinations) == 0 }) {
		t.Errorf("it was changed: %+v", list)
	}
	for range 2 { // also after a change of something else
		if p := s.Problems(); len(p) != 1 || !strings.Contains(p[0].Text, "10.0.0.1 port 80/tcp") {
			t.Errorf("problems: %v", p)
		}
		s.apply(another(model(1)))
	}
	s.apply(m)
	s.do(kernel.DeleteService, theirs)
	check(t, s.Verify())
	s.apply(m)
	s.holds("after it is gone", m)
	if p := s.Problems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
}

func TestRemovingLeavesOthersAlone(t *testing.T) {
	s := newStage(t)
	theirs := other("198.51.100.9:80")
	s.do(kernel.AddService, theirs)
	s.apply(model(1))
	log := slog.New(slog.DiscardHandler)
	for i := range 2 {
		check(t, s.ns.Do(func() error {
			removed, err := Remove(log)
			if removed != (i == 0) {
				t.Errorf("removal %d: something was removed: %t", i, removed)
			}
			return err
		}))
		s.holds("after the removal", model(), theirs)
	}
	others := func() (found bool) {
		check(t, s.ns.Do(func() (err error) {
			found, err = Others()
			return err
		}))
		return found
	}
	if !others() {
		t.Error("the other program's virtual service is not seen")
	}
	s.do(kernel.DeleteService, theirs)
	s.forget()
	s.apply(model(1))
	if others() {
		t.Error("our own are taken for another program's")
	}
}

// Nothing is led to IPVS while it would hide packets from policies.
func TestPacketsAreTrackedOrNothingIsServed(t *testing.T) {
	s := newStage(t)
	s.wants.Sysctls = sysctl.Dir(t.TempDir())
	err := s.ns.Do(func() error {
		_, err := s.Apply(t.Context(), tables.Desired{Model: model(1), Own: func(netip.Addr) bool { return false }})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "net.ipv4.vs.conntrack") {
		t.Errorf("without the setting: %v", err)
	}
	list, err := s.conn.List()
	check(t, err)
	if len(list) > 0 {
		t.Errorf("the kernel has %v", list)
	}
	s.wants.Sysctls = ""
	s.apply(model(1))
	check(t, s.ns.Do(func() error {
		for _, want := range append(settings(), setting{name: tracking, value: "1"}) {
			if got, err := sysctl.Dir("").Read(want.name); err != nil || got != want.value {
				t.Errorf("%s is %q, %v", want.name, got, err)
			}
		}
		return nil
	}))
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tables

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
)

// counted counts how often the connection table is read.
type counted struct {
	connections
	dumps int
}

func (c *counted) DumpProtocol(f inet.Family, p inet.Protocol, take func(*inet.Connection)) error {
	c.dumps++
	return c.connections.DumpProtocol(f, p, take)
}

// still is a rest that lasts until the test ends it.
type still struct {
	left  time.Duration
	begun int
}

func (s *still) AfterScan(time.Time) { s.begun++ }

func (s *still) Left() time.Duration { return s.left }

// watched has a stage whose scans are counted, and whose rest the test sets.
func watched(s *stage) (*counted, *still) {
	table, rest := &counted{connections: s.entries}, &still{}
	s.entries, s.scans = table, rest
	return table, rest
}

// once applies a model once, as the loop does.
func (s *stage) once(m *service.Model) (r Report) {
	s.t.Helper()
	check(s.t, s.ns.Do(func() (err error) {
		r, err = s.Apply(s.t.Context(), Desired{Model: m, Own: noAddress})
		return err
	}))
	return r
}

// A scan costs what the kernel's table is large, so changes that come during its rest have one together. It finds
// connections to all backends that went, also to those that only came in between.
func TestChangesInARowScanTheConnectionsOnce(t *testing.T) {
	s := newStage(t)
	table, rest := watched(s)
	s.once(model(1, 2))
	front := addressPort(0, 1, 80)
	for i := range 3 {
		s.connect(uint16(i+1), inet.UDP, front, addressPort(2, i+1, 8080))
	}
	table.dumps, rest.left = 0, time.Minute
	last := model(1) // applied again unchanged, as by a pass that nothing but the scan asks for
	for i := range 50 {
		for _, m := range []*service.Model{model(1, 3), last} {
			if r := s.once(m); r.Later <= 0 || r.Later > time.Minute || r.Ended != 0 || r.Elements == 0 {
				t.Fatalf("change %d: %+v", i, r)
			}
		}
	}
	if left := s.clients(); table.dumps != 0 || len(left) != 3 {
		t.Errorf("while it rests: %d scans, left are the clients %d", table.dumps, left)
	}
	rest.left, rest.begun = 0, 0
	if r := s.once(last); r.Later != 0 || r.Ended != 2 || table.dumps != len(inet.Families) || rest.begun != 1 {
		t.Errorf("after the rest: %+v, %d scans, %d rests", r, table.dumps, rest.begun)
	}
	if left := s.clients(); !slices.Equal(left, []uint16{1}) {
		t.Errorf("left are the clients %d", left)
	}
	if r := s.once(model(1)); r != (Report{}) || table.dumps != len(inet.Families) {
		t.Errorf("without a change: %+v, %d scans", r, table.dumps)
	}
}

// A change that comes alone waits for nothing, nor does what an earlier process left.
func TestALoneChangeScansTheConnectionsAtOnce(t *testing.T) {
	s := newStage(t)
	table, rest := watched(s)
	rest.left = time.Minute
	if r := s.once(model(1, 2)); r.Later != 0 || table.dumps != 2*len(inet.Families) {
		t.Errorf("the first pass: %+v, %d scans", r, table.dumps)
	}
	s.connect(1, inet.UDP, addressPort(0, 1, 80), addressPort(2, 2, 8080))
	rest.left, table.dumps = 0, 0
	if r := s.once(model(1)); r.Later != 0 || r.Ended != 1 || table.dumps != len(inet.Families) {
		t.Errorf("a change: %+v, %d scans", r, table.dumps)
	}
}

// besides has a further Service of UDP at port 81, outside of the ranges of Services as a load balancer's address is.
func besides(m *service.Model, backends ...int) *service.Model {
	for _, p := range []*program.Program{m.IPv4, m.IPv6} {
		front := program.Front{Addr: address(p.Family, 0, 2), Protocol: inet.UDP, Port: 81}
		pick := program.Pick{Count: uint16(len(backends)), Otherwise: program.Reject}
		p.Routes = p.Routes.With(program.Route{Front: front, Inside: pick, Outside: pick})
		for i, n := range backends {
			p.Slots = p.Slots.With(program.Slot{Front: front, Number: uint16(i),
				Backend: program.Backend{Addr: address(p.Family, 2, n), Port: 8080}})
		}
	}
	return m
}

// drift has another program change the table of IPv4.
func (s *stage) drift() {
	s.t.Helper()
	foreign := nft.Op{Kind: nft.AddElements, Set: &nft.Set{Name: "vips", Key: nft.Addr4},
		Entries: []nft.Entry{{Key: nft.Key{Element: inet.Element{Addr: address(inet.IPv4, 0, 9)}}}}}
	check(s.t, s.ns.Do(func() error {
		other, err := nft.Open(0, ruleset.Table(inet.IPv4))
		if err != nil {
			return err
		}
		return errors.Join(other.Commit([]nft.Op{foreign}), other.Close(), s.Verify())
	}))
}

// A Service that goes in the pass that repairs what another program changed leaves no client.
func TestAServiceThatGoesWithDriftLeavesNoClient(t *testing.T) {
	s := newStage(t)
	s.apply(besides(model(1), 5))
	s.connect(1, inet.UDP, addressPort(0, 2, 81), addressPort(2, 5, 8080))
	s.drift()
	if r := s.apply(model(1)); r.Drift == 0 || r.Ended != 1 {
		t.Errorf("%+v; left are the clients %d", r, s.clients())
	}
}

// A backend that came with a pass that failed on the way, after the table was in force, and that went before the next
// scan leaves no client.
func TestABackendBetweenTwoScansLeavesNoClient(t *testing.T) {
	one, other := besides(model(1), 5, 6), besides(model(1), 5)
	for name, fail := range map[string]func(*stage, *Desired){
		"the scan fails": func(s *stage, _ *Desired) { s.entries = silent{s.entries} },
		"what follows the table fails": func(_ *stage, d *Desired) {
			d.Entered = func(inet.Family) error { return unix.EIO }
		},
	} {
		s := newStage(t)
		s.apply(one)
		s.scans = &still{} // nothing waits
		want := Desired{Model: besides(model(1, 2), 5), Own: noAddress}
		fail(s, &want)
		check(t, s.ns.Do(func() error {
			if r, err := s.Apply(t.Context(), want); err == nil && r.Unsettled == nil {
				return errors.New("the pass succeeds")
			}
			return nil
		}))
		s.connect(1, inet.UDP, addressPort(0, 1, 80), addressPort(2, 2, 8080))
		if r := s.apply(other); r.Ended != 1 {
			t.Errorf("%s: %+v; left are the clients %d", name, r, s.clients())
		}
	}
}

// A family whose scans cannot wait, pass after pass, does not keep those of the other one waiting.
func TestAFamilyThatIsScannedAllTheTimeStarvesNoOther(t *testing.T) {
	s := newStage(t)
	s.apply(model(1, 2))
	_, rest := watched(s)
	rest.left = time.Minute
	s.once(model(1))
	v6 := s.families[slices.Index(inet.Families[:], inet.IPv6)]
	v6.due = v6.due.Add(-time.Minute) // the rest that it waits for is over
	s.drift()
	if r := s.once(model(1)); r.Later != 0 || v6.waiting != nil {
		t.Errorf("%+v", r)
	}
}

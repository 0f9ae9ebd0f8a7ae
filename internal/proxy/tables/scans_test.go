// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tables

import (
	"slices"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
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
type still struct{ left time.Duration }

func (s *still) AfterScan(time.Time) {}

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
			if r := s.once(m); r.Later != time.Minute || r.Ended != 0 || r.Elements == 0 {
				t.Fatalf("change %d: %+v", i, r)
			}
		}
	}
	if left := s.clients(); table.dumps != 0 || len(left) != 3 {
		t.Errorf("while it rests: %d scans, left are the clients %d", table.dumps, left)
	}
	rest.left = 0
	if r := s.once(last); r.Later != 0 || r.Ended != 2 || table.dumps != len(inet.Families) {
		t.Errorf("after the rest: %+v, %d scans", r, table.dumps)
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

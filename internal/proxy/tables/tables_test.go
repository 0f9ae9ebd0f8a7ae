// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tables

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
)

func TestMain(m *testing.M) { entry.Try(m) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stage is a network namespace and the tables in it.
type stage struct {
	t  *testing.T
	ns *netns.NS
	*Tables
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ns, err := netns.New()
	check(t, err)
	t.Cleanup(func() { check(t, ns.Close()) })
	s := &stage{t: t, ns: ns}
	s.Tables = s.open()
	return s
}

// open opens the tables as another process would.
func (s *stage) open() (tables *Tables) {
	s.t.Helper()
	check(s.t, s.ns.Do(func() (err error) {
		tables, err = Open(ruleset.Settings{}, new(nft.Tally), slog.New(slog.DiscardHandler))
		return err
	}))
	s.t.Cleanup(func() { check(s.t, tables.Close()) })
	return tables
}

// apply applies a model in the namespace.
func (s *stage) apply(m *service.Model) Report {
	s.t.Helper()
	r, err := s.try(m)
	check(s.t, err)
	return r
}

// settled applies, and again as soon as it is asked for.
func (s *stage) settled(want Desired) (Report, error) {
	sum, err := s.Apply(s.t.Context(), want)
	for err == nil && sum.Later > 0 {
		time.Sleep(sum.Later)
		var r Report
		r, err = s.Apply(s.t.Context(), want)
		sum = sum.And(r)
	}
	sum.Scan = 0 // no figure to compare
	return sum, err
}

func (s *stage) try(m *service.Model) (r Report, err error) {
	err = s.ns.Do(func() (err error) {
		r, err = s.settled(Desired{Model: m, Own: noAddress})
		return err
	})
	return r, err
}

// model has one Service for each protocol and family, at port 80, with the backends of these numbers.
func model(backends ...int) *service.Model {
	one := func(f inet.Family) *program.Program {
		p := &program.Program{Family: f}
		for _, proto := range []inet.Protocol{inet.TCP, inet.UDP} {
			front := program.Front{Addr: address(f, 0, 1), Protocol: proto, Port: 80}
			pick := program.Pick{Count: uint16(len(backends)), Otherwise: program.Reject}
			p.Routes = p.Routes.With(program.Route{Front: front, Inside: pick, Outside: pick})
			for i, n := range backends {
				p.Slots = p.Slots.With(program.Slot{Front: front, Number: uint16(i),
					Backend: program.Backend{Addr: address(f, 2, n), Port: 8080}})
			}
		}
		p.ClusterAddresses = p.ClusterAddresses.With(inet.Element{Addr: address(f, 0, 1)})
		return p
	}
	return &service.Model{IPv4: one(inet.IPv4), IPv6: one(inet.IPv6)}
}

func noAddress(netip.Addr) bool { return false }

func address(f inet.Family, net, host int) netip.Addr { return genproxy.Addr(f, net, host) }

func TestAModelThatIsInForceSendsNothing(t *testing.T) {
	s := newStage(t)
	if r := s.apply(model(1, 2)); !r.Full || r.Elements == 0 {
		t.Errorf("the first model: %+v", r)
	}
	if r := s.apply(model(1, 2)); r != (Report{}) {
		t.Errorf("the same model again: %+v", r)
	}
	if r := s.apply(model(1, 3)); r.Elements != 2*2*2 || r.Full { // one out and one in, two fronts, two families
		t.Errorf("a backend is replaced: %+v", r)
	}
}

// What is shown is what the kernel has, and says what another program changed.
func TestTheTablesAreShown(t *testing.T) {
	s := newStage(t)
	shows := func(wants ...string) {
		t.Helper()
		var b strings.Builder
		check(t, s.ns.Do(func() error { return s.Ruleset(&b) }))
		for _, want := range wants {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%q is not in\n%s", want, &b)
			}
		}
	}
	shows("# table ip podwall-services: none is loaded\n", "# table ip6 podwall-services: none is loaded\n")
	s.apply(model(1, 2))
	shows("# table ip podwall-services: the kernel has exactly this\ntable ip podwall-services {\n",
		"# table ip6 podwall-services: the kernel has exactly this\ntable ip6 podwall-services {\n", address(inet.IPv6, 2, 2).String())
	s.flush()
	shows("# table ip podwall-services: the kernel differs; missing there:\n")
}

func TestAnotherProcessGoesOn(t *testing.T) {
	s := newStage(t)
	s.apply(model(1, 2))
	s.Tables = s.open()
	if r := s.apply(model(1, 2)); r != (Report{Full: true}) {
		t.Errorf("a second process with the same model: %+v", r)
	}
}

// watch listens for changes until the test ends, as an agent does.
func (s *stage) watch() {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.ns.Do(func() error { return s.Watch(ctx) }) }()
	s.t.Cleanup(func() {
		stop()
		check(s.t, <-ended)
	})
	s.await() // the watch begins with a notice
}

// await waits for a notice.
func (s *stage) await() {
	s.t.Helper()
	select {
	case <-s.Changed():
	case <-time.After(time.Minute):
		s.t.Fatal("no change was noticed")
	}
}

// What another program does to the tables is noticed, counted and undone.
func TestDriftIsRepaired(t *testing.T) {
	s := newStage(t)
	s.watch()
	s.apply(model(1, 2))
	foreign := nft.Op{Kind: nft.AddElements, Set: &nft.Set{Name: "vips", Key: nft.Addr4},
		Entries: []nft.Entry{{Key: nft.Key{Element: inet.Element{Addr: address(inet.IPv4, 0, 9)}}}}}
	check(t, s.ns.Do(func() error {
		other, err := nft.Open(0, ruleset.Table(inet.IPv4))
		if err != nil {
			return err
		}
		return errors.Join(other.Commit([]nft.Op{foreign}), other.Close())
	}))
	s.await()
	if r := s.apply(model(1, 2)); r.Drift != 1 || r.Elements != 1 {
		t.Errorf("after an element was added: %+v", r)
	}
	if r := s.apply(model(1, 2)); r.Changes > 0 || r.Drift > 0 {
		t.Errorf("after the repair: %+v", r)
	}
}

// Verify notices what no notice told.
func TestVerifyComparesAfterChangesOfOthers(t *testing.T) {
	s := newStage(t)
	s.apply(model(1, 2))
	verify := func() { check(t, s.ns.Do(s.Verify)) }
	if verify(); s.apply(model(1, 2)).Full {
		t.Error("the tables are read again although nothing changed")
	}
	s.flush()
	if verify(); s.apply(model(1, 2)).Drift == 0 {
		t.Error("a flush stays unnoticed")
	}
}

// flush removes all rules of the namespace.
func (s *stage) flush() {
	s.t.Helper()
	check(s.t, s.ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	}))
}

// After a flush all is written again, and a connection that was begun in between is ended: its next try meets
// the Service.
func TestFlushedTablesComeBack(t *testing.T) {
	s := newStage(t)
	s.watch()
	s.apply(model(1))
	s.flush()
	s.await()
	front, backend := addressPort(0, 1, 80), addressPort(2, 1, 8080)
	s.connect(1, inet.TCP, front, front)
	s.connect(2, inet.TCP, front, backend)
	if r := s.apply(model(1)); r.Drift == 0 || !r.Full || r.Ended != 1 {
		t.Errorf("after a flush: %+v", r)
	}
	if left := s.clients(); !slices.Equal(left, []uint16{2}) {
		t.Errorf("connections of the clients %d are left, want that which is established", left)
	}
}

// UDP clients of a backend that goes are ended, unless it still serves, and no others.
func TestConnectionsToABackendThatGoesEnd(t *testing.T) {
	s := newStage(t)
	s.apply(model(1, 2, 3))
	front := addressPort(0, 1, 80)
	for i := range 3 {
		s.connect(uint16(i+1), inet.UDP, front, addressPort(2, i+1, 8080))
		s.connect(uint16(i+11), inet.TCP, front, addressPort(2, i+1, 8080))
	}
	leaving := program.Backend{Addr: address(inet.IPv4, 2, 3), Port: 8080}
	var r Report
	check(t, s.ns.Do(func() (err error) {
		r, err = s.settled(Desired{Model: model(1), Own: noAddress,
			Serving: func(_ program.Front, b program.Backend) bool { return b == leaving }})
		return err
	}))
	if left, want := s.clients(), []uint16{1, 3, 11, 12, 13}; r.Ended != 1 || !slices.Equal(left, want) {
		t.Errorf("ended %d; left are the clients %d, want %d", r.Ended, left, want)
	}
	r = s.apply(model(1)) // it serves no more
	if left, want := s.clients(), []uint16{1, 11, 12, 13}; r.Ended != 1 || !slices.Equal(left, want) {
		t.Errorf("then ended %d; left are the clients %d, want %d", r.Ended, left, want)
	}
}

// A process that begins ends what an earlier one left: connections to a backend that went meanwhile.
func TestTheFirstPassEndsOldConnections(t *testing.T) {
	s := newStage(t)
	s.apply(model(1, 2))
	s.connect(1, inet.UDP, addressPort(0, 1, 80), addressPort(2, 2, 8080))
	s.connect(2, inet.UDP, addressPort(0, 1, 80), addressPort(2, 1, 8080))
	s.connect(3, inet.UDP, addressPort(9, 1, 80), addressPort(9, 1, 80)) // not ours
	s.Tables = s.open()
	r := s.apply(model(1))
	if left, want := s.clients(), []uint16{2, 3}; r.Ended != 1 || !slices.Equal(left, want) {
		t.Errorf("ended %d; left are the clients %d, want %d", r.Ended, left, want)
	}
}

// A Service that went while no process ran leaves no client, wherever its address is from: the table that the earlier
// process left says that it was a Service's.
func TestAServiceThatWentBetweenTwoProcessesLeavesNoClient(t *testing.T) {
	s := newStage(t)
	node := func(m *service.Model) *service.Model {
		m.IPv4.NodeAddresses = []netip.Addr{address(inet.IPv4, 3, 1)}
		return m
	}
	both := node(besides(model(1), 5))
	front := program.Front{Protocol: inet.UDP, Port: 30_080}
	pick := program.Pick{Count: 1}
	both.IPv4.Routes = both.IPv4.Routes.With(program.Route{Front: front, Inside: pick, Outside: pick})
	both.IPv4.Slots = both.IPv4.Slots.With(program.Slot{Front: front,
		Backend: program.Backend{Addr: address(inet.IPv4, 2, 6), Port: 8080}})
	s.apply(both)
	s.connect(1, inet.UDP, addressPort(0, 2, 81), addressPort(2, 5, 8080))     // to an address of the Service that goes
	s.connect(2, inet.UDP, addressPort(3, 1, 30_080), addressPort(2, 6, 8080)) // to a node port that goes
	s.connect(3, inet.UDP, addressPort(3, 1, 30_081), addressPort(2, 6, 8080)) // to a port that was never ours
	s.connect(4, inet.UDP, addressPort(0, 1, 80), addressPort(2, 1, 8080))     // to the Service that stays
	s.connect(5, inet.TCP, addressPort(3, 1, 30_080), addressPort(2, 6, 8080)) // of TCP, which ends by itself
	s.Tables = s.open()
	r := s.apply(node(model(1)))
	if left, want := s.clients(), []uint16{3, 4, 5}; r.Ended != 2 || !slices.Equal(left, want) {
		t.Errorf("ended %d; left are the clients %d, want %d", r.Ended, left, want)
	}
}

// What IPVS chose leads nowhere when it no longer chooses: where nothing of ours changes, it takes a second look.
func TestConnectionsThroughIPVSEnd(t *testing.T) {
	s := newStage(t)
	front, backend := addressPort(0, 1, 80), addressPort(2, 1, 8080)
	s.apply(model(1))
	s.connect(1, inet.UDP, front, backend)
	s.balance(2, inet.UDP, front, backend)
	s.balance(3, inet.TCP, front, backend) // ends by itself
	s.balance(4, inet.UDP, addressPort(9, 1, 80), backend)
	if r := s.apply(model(1)); r != (Report{}) {
		t.Errorf("without a change: %+v", r)
	}
	s.Resettle()
	if r := s.apply(model(1)); r != (Report{Ended: 1}) || !slices.Equal(s.clients(), []uint16{1, 3, 4}) {
		t.Errorf("when it no longer chooses: %+v; left are the clients %d", r, s.clients())
	}
	s.balance(2, inet.UDP, front, backend)
	s.Tables = s.open()
	if r := s.apply(model(1)); r.Ended != 1 || !slices.Equal(s.clients(), []uint16{1, 3, 4}) {
		t.Errorf("of another process: %+v; left are the clients %d", r, s.clients())
	}
	s.balance(2, inet.UDP, front, backend)
	s.settings.IPVS = true
	s.Resettle()
	if r := s.apply(model(1)); r.Ended != 0 || len(s.clients()) != 4 {
		t.Errorf("while it chooses: %+v; left are the clients %d", r, s.clients())
	}
}

func TestReportsOfTwoPasses(t *testing.T) {
	one, two := Report{Changes: 1, Elements: 2, Drift: 3, Forgotten: 4, Ended: 5, Full: true, Unsettled: unix.EIO},
		Report{Changes: 10, Elements: 20, Drift: 30, Forgotten: 40, Ended: 50}
	if got, want := one.And(two), (Report{Changes: 11, Elements: 22, Drift: 33, Forgotten: 44, Ended: 55, Full: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// tableOwner is NFT_TABLE_F_OWNER: only the socket that made the table may change it.
const tableOwner = 0x2

// silent is a connection table that does not answer.
type silent struct{ connections }

func (silent) DumpProtocol(inet.Family, inet.Protocol, func(*inet.Connection)) error { return unix.EIO }

// Connections that cannot be ended do not keep the tables from the change, and are ended by the next Apply.
func TestConnectionsThatCannotBeEndedAreTriedAgain(t *testing.T) {
	s := newStage(t)
	s.apply(model(1, 2))
	s.connect(1, inet.UDP, addressPort(0, 1, 80), addressPort(2, 2, 8080))
	s.entries = silent{s.entries}
	if r := s.apply(model(1)); r.Unsettled == nil || r.Elements == 0 {
		t.Errorf("with a table that does not answer: %+v", r)
	}
	if r := s.apply(model(1)); r.Unsettled != nil || r.Ended != 1 || r.Changes != 0 {
		t.Errorf("when it answers again: %+v", r)
	}
}

// A family that fails does not keep the other from its change; what failed is made up for.
func TestOneFamilyFails(t *testing.T) {
	s := newStage(t)
	s.apply(model(1))
	var other *nftables.Conn
	check(t, s.ns.Do(func() (err error) { // a table that another program owns
		if err := Remove(slog.New(slog.DiscardHandler)); err != nil {
			return err
		}
		other, err = nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		other.AddTable(&nftables.Table{Name: ruleset.TableName, Family: nftables.TableFamilyIPv4,
			Flags: tableOwner})
		return errors.Join(other.Flush(), s.Verify())
	}))
	r, err := s.try(model(2))
	if err == nil || !strings.Contains(err.Error(), "ip podwall-services") || r.Elements == 0 {
		t.Errorf("a table of IPv4 that another program owns: %v, %+v", err, r)
	}
	check(t, other.CloseLasting()) // the kernel removes the table
	if r := s.apply(model(2)); r.Elements == 0 {
		t.Errorf("when it is gone: %+v", r)
	}
	if r := s.apply(model(2)); r != (Report{}) {
		t.Errorf("after that: %+v", r)
	}
}

func TestRemovedTables(t *testing.T) {
	s := newStage(t)
	there := func() (found bool) {
		check(t, s.ns.Do(func() (err error) {
			found, err = Exist()
			return err
		}))
		return found
	}
	if there() {
		t.Error("there are tables before the first Apply")
	}
	if s.apply(model(1)); !there() {
		t.Error("no tables after an Apply")
	}
	for range 2 {
		if check(t, s.ns.Do(func() error { return Remove(slog.New(slog.DiscardHandler)) })); there() {
			t.Error("tables are left after Remove")
		}
	}
}

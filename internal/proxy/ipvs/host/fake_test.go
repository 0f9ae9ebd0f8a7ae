// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	kernel "github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/lab/testkit/genproxy"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// fake is an IPVS that can refuse. Tables and routes beside it are the kernel's.
type fake struct {
	has    map[kernel.ID]kernel.Listed
	refuse func(kernel.Op) error

	timeouts kernel.Timeouts
	set      int // how often they were set
}

func (f *fake) Services() (list []kernel.Service, err error) {
	for _, s := range f.has {
		list = append(list, s.Service)
	}
	return list, nil
}

func (f *fake) List() (list []kernel.Listed, err error) {
	for _, s := range f.has {
		s.Destinations = slices.Clone(s.Destinations)
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b kernel.Listed) int { return a.ID.Compare(b.ID) })
	return list, nil
}

func (f *fake) Destinations(id kernel.ID) ([]kernel.Held, error) {
	return slices.Clone(f.has[id].Destinations), nil
}

func (f *fake) Do(o kernel.Op) error {
	if f.refuse != nil {
		if err := f.refuse(o); err != nil {
			return fmt.Errorf("IPVS: %s: %w", o, err)
		}
	}
	done(f.has, o)
	return nil
}

func (f *fake) Timeouts() (kernel.Timeouts, error) { return f.timeouts, nil }

func (f *fake) SetTimeouts(t kernel.Timeouts) error {
	f.set++
	if t.UDP > math.MaxInt32/1000 {
		return fmt.Errorf("setting the timeouts of IPVS: %w", unix.EINVAL)
	}
	f.timeouts = t.Or(f.timeouts)
	return nil
}

func (f *fake) Close() error { return nil }

// newFakeStage is a network namespace with the proxy on an IPVS that is none.
func newFakeStage(t *testing.T) (*stage, *fake) {
	t.Helper()
	ns := nftrun.Namespace(t)
	s, f := &stage{t: t, ns: ns}, &fake{has: map[kernel.ID]kernel.Listed{}}
	dir := t.TempDir()
	for _, one := range append(settings(), setting{name: tracking}) {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, one.name)), 0o755))
		check(t, os.WriteFile(filepath.Join(dir, one.name), []byte("0\n"), 0o600))
	}
	check(t, ns.Do(func() error {
		log := slog.New(slog.DiscardHandler)
		of, err := tables.Open(ruleset.Settings{IPVS: true}, new(nft.Tally), log)
		if err != nil {
			return err
		}
		t.Cleanup(func() { check(t, of.Close()) })
		r, err := openRoutes()
		if err != nil {
			return err
		}
		s.Proxy = with(of, f, f, r, Settings{Sysctls: sysctl.Dir(dir)}, log)
		return nil
	}))
	t.Cleanup(func() { check(t, s.Close()) })
	return s, f
}

// another adds a Service to a model.
func another(m *service.Model) *service.Model {
	p := *m.IPv4
	front := program.Front{Addr: genproxy.Addr(inet.IPv4, 0, 7), Protocol: inet.UDP, Port: 53}
	pick := program.Pick{Count: 1}
	p.Routes = p.Routes.With(program.Route{Front: front, Inside: pick, Outside: pick})
	p.Slots = p.Slots.With(program.Slot{Front: front, Backend: program.Backend{Addr: genproxy.Addr(inet.IPv4, 2, 9), Port: 53}})
	return &service.Model{IPv4: &p, IPv6: m.IPv6}
}

// What the kernel refuses for one destination is a problem, and nobody else's: until it takes it.
func TestARefusalIsNobodyElses(t *testing.T) {
	s, f := newFakeStage(t)
	bad := genproxy.Addr(inet.IPv4, 2, 2)
	f.refuse = func(o kernel.Op) error {
		if o.Kind == kernel.AddDestination && o.Destination.Addr == bad {
			return unix.EINVAL
		}
		return nil
	}
	refused := func(when string, want int) {
		t.Helper()
		if p := s.Problems(); len(p) != want || want > 0 && !strings.Contains(p[0].Text, bad.String()) {
			t.Errorf("%s: problems: %v", when, p)
		}
		n := 0
		for id, one := range f.has {
			n += len(one.Destinations)
			if len(one.Destinations) == 0 {
				t.Errorf("%s: %s has no destinations", when, id)
			}
		}
		if n == 0 {
			t.Errorf("%s: nothing is served", when)
		}
	}
	s.apply(model(1, 2))
	refused("at first", 1)
	s.apply(another(model(1, 2)))
	refused("after an unrelated change", 1)
	check(t, s.Verify())
	if r := s.apply(another(model(1, 2))); r.Drift > 0 {
		t.Errorf("a refusal is taken for another program's change: %+v", r)
	}
	refused("after a verification", 1)
	s.apply(model(1))
	refused("after the endpoint is gone", 0)
	s.apply(model(1, 2))
	refused("after it came back", 1)
	f.refuse = nil
	check(t, s.Verify())
	s.apply(model(1, 2))
	refused("when the kernel takes it", 0)
	s.holds("when the kernel takes it", model(1, 2))
}

func TestAFailingConnectionFailsTheTurn(t *testing.T) {
	s, f := newFakeStage(t)
	f.refuse = func(kernel.Op) error { return os.NewSyscallError("sendmsg", unix.EBADF) }
	check(t, s.ns.Do(func() error {
		if _, err := s.Apply(t.Context(), tables.Desired{Model: model(1), Own: func(netip.Addr) bool { return false }}); err == nil {
			t.Error("no error")
		}
		return nil
	}))
	f.refuse = nil
	s.apply(model(1))
	s.holds("when the connection works again", model(1))
}

// A node without IPv6 serves IPv4, and says what it does not serve.
func TestANodeWithoutIPv6(t *testing.T) {
	s, _ := newFakeStage(t)
	check(t, s.ns.Do(func() error {
		for _, where := range []string{"all", "lo"} {
			if err := sysctl.Dir("").Write("net/ipv6/conf/"+where+"/disable_ipv6", "1"); err != nil {
				return err
			}
		}
		return nil
	}))
	s.apply(model(1))
	if p := s.Problems(); len(p) != 1 || !strings.Contains(p[0].Text, genproxy.Addr(inet.IPv6, 0, 1).String()) {
		t.Errorf("problems: %v", p)
	}
	if found, err := s.routes.list(inet.IPv4); err != nil || len(found) != 1 {
		t.Errorf("addresses of IPv4: %v, %v", found, err)
	}
}

// A scheduler that the kernel lacks is a problem as long as it lacks it and a Service asks for it.
func TestASchedulerThatIsMissing(t *testing.T) {
	s, f := newFakeStage(t)
	f.refuse = func(o kernel.Op) error {
		if o.Service.Scheduler == "mh" {
			return kernel.ErrScheduler
		}
		return nil
	}
	asks := func() *service.Model {
		m := model(1)
		p := *m.IPv4
		for r := range m.IPv4.Routes.All() {
			p.Routes = p.Routes.Without(r)
			r.Schedule.Scheduler = program.Maglev
			p.Routes = p.Routes.With(r)
		}
		return &service.Model{IPv4: &p, IPv6: m.IPv6}
	}
	for i, step := range []struct {
		m    *service.Model
		want int
	}{{asks(), 1}, {model(1), 0}, {asks(), 1}} {
		s.apply(step.m)
		if p := s.Problems(); len(p) != step.want || step.want > 0 && p[0].Subject != "scheduler mh" {
			t.Errorf("step %d: problems: %v", i, p)
		}
	}
	f.refuse = nil
	check(t, s.Verify())
	s.apply(asks())
	if p := s.Problems(); len(p) != 0 {
		t.Errorf("after modprobe: problems: %v", p)
	}
	s.holds("after modprobe", asks())
}

// The backends of a front are read once, however many destinations are asked about.
func TestBackendsAreReadOnce(t *testing.T) {
	const n = 500
	front := program.Front{Addr: genproxy.Addr(inet.IPv4, 0, 1), Protocol: inet.TCP, Port: 80}
	p := &program.Program{Family: inet.IPv4}
	backend := func(i int) kernel.Backend {
		return kernel.Backend{Addr: netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}), Port: 80}
	}
	for i := range n {
		p.Slots = p.Slots.With(program.Slot{Front: front, Number: uint16(i), Backend: program.Backend(backend(i))})
	}
	k, reads := newKeeper(p, nil), 0
	k.slot = func(f program.Front, i uint16) (program.Slot, bool) {
		reads++
		return p.Slot(f, i)
	}
	for i := range 2 * n {
		if got := k.keep(kernel.ID{Addr: front.Addr, Protocol: front.Protocol, Port: front.Port}, backend(i)); got != (i < n) {
			t.Fatalf("%d is kept: %v", i, got)
		}
	}
	if reads != n+1 {
		t.Errorf("%d reads for %d backends", reads, n)
	}
}

// What another program removes comes back without a change of a Service.
func TestVirtualServicesThatAreGoneComeBack(t *testing.T) {
	s, f := newFakeStage(t)
	m := model(1, 2)
	s.apply(m)
	woken := func() bool {
		select {
		case <-s.Changed():
			return true
		default:
			return false
		}
	}
	woken() // of the tables' first writing
	s.look()
	if s.lost.Load() {
		t.Error("nothing is gone, and is looked for")
	}
	maps.DeleteFunc(f.has, func(id kernel.ID, _ kernel.Listed) bool { return id.Addr.Is4() })
	s.look()
	if !woken() {
		t.Error("nobody is told that virtual services are gone")
	}
	if r := s.apply(m); r.Drift != 2 {
		t.Errorf("two are gone: %+v", r)
	}
	s.holds("after the repair", m)
	if s.look(); s.lost.Load() {
		t.Error("all are back, and are looked for")
	}
}

// What another program has is ours soon after it is gone, also if that program had all: as after ipvsadm -C when a
// proxy on IPVS has stopped.
func TestAPlaceThatIsLeftIsTakenSoon(t *testing.T) {
	s, f := newFakeStage(t)
	m := model(1, 2)
	for _, family := range inet.Families {
		for id := range ipvs.Of(m.Program(family)).Virtual {
			f.has[id] = kernel.Listed{Service: kernel.Service{ID: id, Scheduler: "wlc"}}
		}
	}
	s.apply(m)
	if p := s.Problems(); len(p) != 1 || p[0].Subject != "virtual services of IPVS" {
		t.Errorf("next to those of another program: problems: %v", p)
	}
	if s.look(); s.lost.Load() {
		t.Error("nothing is gone, and is looked for")
	}
	clear(f.has)
	if s.look(); !s.lost.Load() {
		t.Error("nobody is told that the other program's virtual services are gone")
	}
	s.apply(m)
	s.holds("after that", m)
	if p := s.Problems(); len(p) != 0 {
		t.Errorf("after that: problems: %v", p)
	}
}

// The node connects to Services from the address that it has now.
func TestTheSourceOfARouteFollowsTheNode(t *testing.T) {
	s, _ := newFakeStage(t)
	check(t, s.ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		lo, err := h.LinkByName("lo")
		for n := 0; n < 2 && err == nil; n++ {
			err = h.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(net.IP(genproxy.Addr(inet.IPv4, 1, n).AsSlice()))})
		}
		return err
	}))
	at := func(n int) *service.Model {
		m := model(1)
		m.IPv4.NodeAddresses = []netip.Addr{genproxy.Addr(inet.IPv4, 1, n)}
		return m
	}
	source := func(when string, n int) {
		t.Helper()
		found, err := s.routes.list(inet.IPv4)
		check(t, err)
		if got := found[genproxy.Addr(inet.IPv4, 0, 1)]; len(found) != 1 || got != genproxy.Addr(inet.IPv4, 1, n) {
			t.Errorf("%s: %v", when, found)
		}
	}
	s.apply(at(0))
	source("at first", 0)
	s.apply(at(1))
	source("after the node's address changed", 1)
	_, err := s.routes.add(genproxy.Addr(inet.IPv4, 0, 1), genproxy.Addr(inet.IPv4, 1, 0))
	check(t, err)
	check(t, s.Verify())
	s.apply(at(1))
	source("after a verification", 1)
}

// The settings are those that docs/services.md names, and no others. Whoever removes IPVS does not look at them.
func TestTheSettingsOfIPVSAreThoseOfThePage(t *testing.T) {
	s, _ := newFakeStage(t)
	s.apply(model(1))
	found := map[string]string{}
	root := string(s.wants.Sysctls)
	check(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		found[strings.TrimPrefix(path, root+"/")] = strings.TrimSpace(string(text))
		return err
	}))
	want := map[string]string{"net/ipv4/vs/conntrack": "1", "net/ipv4/vs/expire_nodest_conn": "1",
		"net/ipv4/vs/expire_quiescent_template": "1", "net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
	if !maps.Equal(found, want) {
		t.Errorf("the settings are %v, want %v", found, want)
	}
}

// Settings that are stricter than is needed stay.
func TestStricterSettingsStay(t *testing.T) {
	s, _ := newFakeStage(t)
	const name = "net/ipv4/conf/all/arp_ignore"
	for _, tt := range []struct{ is, want string }{{"0", "1"}, {"1", "1"}, {"2", "2"}, {"8", "8"}} {
		check(t, s.wants.Sysctls.Write(name, tt.is))
		check(t, s.Proxy.settings())
		if got, err := s.wants.Sysctls.Read(name); err != nil || got != tt.want {
			t.Errorf("%s becomes %s, %v", tt.is, got, err)
		}
	}
}

// Timeouts are set where they are others than asked for, and only then. Without any nothing is set.
func TestTimeoutsOfIPVS(t *testing.T) {
	s, f := newFakeStage(t)
	had := kernel.Timeouts{TCP: 900, TCPFin: 120, UDP: 300}
	for _, tt := range []struct {
		asked, want kernel.Timeouts
		set         int // how often
		problem     bool
	}{
		{kernel.Timeouts{}, had, 0, false},
		{kernel.Timeouts{TCP: 900}, had, 0, false},
		{kernel.Timeouts{TCP: 7200}, kernel.Timeouts{TCP: 7200, TCPFin: 120, UDP: 300}, 1, false},
		{kernel.Timeouts{TCPFin: 60, UDP: 30}, kernel.Timeouts{TCP: 900, TCPFin: 60, UDP: 30}, 1, false},
		{kernel.Timeouts{UDP: 1 << 31}, had, 2, true},
	} {
		f.timeouts, f.set, s.wants.Timeouts = had, 0, tt.asked
		for range 2 {
			check(t, s.Proxy.settings())
		}
		problem := slices.ContainsFunc(s.Problems(), func(p Problem) bool { return p.Subject == "timeouts of IPVS" })
		if f.timeouts != tt.want || f.set != tt.set || problem != tt.problem {
			t.Errorf("asked for %+v: %+v, set %d times, a problem: %v; want %+v", tt.asked, f.timeouts, f.set, problem, tt)
		}
	}
}

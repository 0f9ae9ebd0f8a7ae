// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/health"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
	"github.com/podwall/podwall/internal/wake"
)

// kernel notes what it is given.
type kernel struct {
	mu       sync.Mutex
	verified int
	err      error         // of Apply
	left     error         // Unsettled of Apply
	scan     time.Duration // Scan of Apply
	waiting  int           // how many of the next Applys have connections that wait
	changed  wake.Signal
	passes   chan *service.Model
}

func newKernel() *kernel { return &kernel{changed: wake.New(), passes: make(chan *service.Model, 100)} }

func (k *kernel) Apply(_ context.Context, want tables.Desired) (tables.Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.passes <- want.Model
	later := time.Duration(0)
	if k.waiting > 0 {
		k.waiting, later = k.waiting-1, time.Millisecond
	}
	return tables.Report{Drift: 1, Ended: 2, Unsettled: k.left, Later: later, Scan: k.scan}, k.err
}

func (k *kernel) Verify() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.verified++
	return nil
}

func (k *kernel) Changed() <-chan struct{} { return k.changed }

func (k *kernel) Counters() (map[string]uint64, error) {
	return map[string]uint64{ruleset.CounterNoBackend: 7}, nil
}

// fail has Apply fail, or succeed again.
func (k *kernel) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// stage is a loop with a kernel that takes everything.
type stage struct {
	*Loop
	t      *testing.T
	kernel *kernel
	log    *strings.Builder
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, kernel: newKernel(), log: &strings.Builder{}}
	store := cluster.NewStore()
	store.KeepServices()
	observer := observe.New(observe.NewRegistry(), observe.Info{Node: "n1", Period: time.Hour})
	observer.RunServices()
	s.Loop = &Loop{Store: store, Kernel: s.kernel, Observer: observer,
		Log:     slog.New(slog.NewTextHandler(s.log, nil)),
		Options: Options{Node: "n1"}, Moved: wake.New(), SyncPeriod: time.Hour,
		Local: func() ([]netip.Addr, error) { return []netip.Addr{addr("127.0.0.1"), addr("192.0.2.1")}, nil }}
	return s
}

// run runs the loop until the test ends.
func (s *stage) run() {
	ctx, stop := context.WithCancel(s.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Run(ctx)
	}()
	s.t.Cleanup(func() {
		stop()
		<-ended
	})
}

// next returns the model of the next pass.
func (s *stage) next() *service.Model {
	s.t.Helper()
	select {
	case m := <-s.kernel.passes:
		return m
	case <-time.After(time.Minute):
		s.t.Fatal("there was no pass")
		return nil
	}
}

// until returns after a pass with a model that holds what is asked for. There may be others before: a pass that
// a wake-up asks for may find nothing new.
func (s *stage) until(what string, holds func(*service.Model) bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if holds(s.next()) {
			return
		}
	}
	s.t.Fatalf("no pass had %s", what)
}

// leads asks for the backends of the Service.
func leads(want ...string) func(*service.Model) bool {
	return func(m *service.Model) bool { return slices.Equal(backends(m), want) }
}

// quiet checks that there is no pass.
func (s *stage) quiet() {
	s.t.Helper()
	select {
	case <-s.kernel.passes:
		s.t.Fatal("there was a pass")
	case <-time.After(100 * time.Millisecond):
	}
}

// fill stores a Service with the endpoints, the node, and that all is there.
func (s *stage) fill(endpoints ...string) {
	s.Store.Update(func(tx *cluster.Tx) {
		tx.SetNode(&cluster.Node{Name: "n1", Addrs: []netip.Addr{addr("192.0.2.1")},
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
		tx.SetService(&cluster.Service{Key: cluster.Key{Namespace: "shop", Name: "web"}, ClusterIPs: []netip.Addr{vip()},
			Ports: []cluster.ServicePort{{Protocol: cluster.TCP, Port: 80}}})
		slice := &cluster.EndpointSlice{Key: cluster.Key{Namespace: "shop", Name: "web-1"}, Service: "web",
			Ports: []cluster.EndpointPort{{Protocol: cluster.TCP, Port: 8080}}}
		for _, e := range endpoints {
			slice.Endpoints = append(slice.Endpoints, cluster.Endpoint{Addr: addr(e),
				Placement: &cluster.Placement{Ready: true, Serving: true}})
		}
		tx.SetEndpointSlice(slice)
		for _, k := range cluster.ServiceKinds() {
			tx.SetSynced(k)
		}
	})
}

func vip() netip.Addr { return addr("10.96.0.1") }

// backends returns where the Service leads.
func backends(m *service.Model) (list []string) {
	front := program.Front{Addr: vip(), Protocol: inet.TCP, Port: 80}
	for s := range m.IPv4.Slots.All() {
		if s.Front == front {
			list = append(list, s.Backend.String())
		}
	}
	slices.Sort(list)
	return list
}

func (s *stage) notReady() string { return strings.Join(s.Observer.Status().NotReady, "; ") }

// services waits until the status has what is asked for: a pass is reported after it.
func (s *stage) await(what string, holds func(observe.Services) bool) {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if holds(*s.Observer.Status().Services) {
			return
		}
	}
	s.t.Fatalf("%s: %+v", what, s.Observer.Status().Services)
}

func TestNothingIsWrittenBeforeEverythingIsKnown(t *testing.T) {
	s := newStage(t)
	s.run()
	s.Store.Update(func(tx *cluster.Tx) { tx.SetSynced(cluster.Services) })
	s.quiet()
	if why := s.notReady(); !strings.Contains(why, "first complete list of endpointslices, nodes, pods") {
		t.Errorf("the node is not ready because %q", why)
	}
	s.fill("10.244.1.1")
	if got := backends(s.next()); !slices.Equal(got, []string{"10.244.1.1:8080"}) {
		t.Errorf("the Service leads to %v", got)
	}
	s.await("served", func(x observe.Services) bool { return x.Services == 1 && x.Backends == 1 && x.Revision > 0 })
	if why := s.notReady(); strings.Contains(why, "Service") {
		t.Errorf("after the first pass the node is not ready because %q", why)
	}
}

func TestChangesAreServed(t *testing.T) {
	s := newStage(t)
	s.fill("10.244.1.1")
	s.run()
	s.next()
	s.fill("10.244.1.1", "10.244.2.2")
	s.until("two endpoints", leads("10.244.1.1:8080", "10.244.2.2:8080"))
	s.fill()
	s.until("no endpoints", leads())
	s.await("without endpoints", func(x observe.Services) bool {
		return x.Idle == 1 && slices.Equal(x.WithoutEndpoints, []string{"shop/web"})
	})
	x := s.Observer.Status().Services
	if x.Ended != 2*x.DriftRepairs || x.DriftRepairs < 3 || x.Drops[ruleset.CounterNoBackend] != 7 {
		t.Errorf("the sums are wrong: %+v", x)
	}
}

func TestAFailureIsTriedAgain(t *testing.T) {
	s := newStage(t)
	s.fill("10.244.1.1")
	s.kernel.fail(errors.New("no such thing"))
	s.run()
	s.next()
	s.await("failed", func(x observe.Services) bool { return x.LastApply != nil && x.LastApply.Error != "" })
	if why := s.notReady(); !strings.Contains(why, "the last pass of Services failed: no such thing") {
		t.Errorf("the node is not ready because %q", why)
	}
	s.kernel.fail(nil)
	s.await("served", func(x observe.Services) bool { return x.Services == 1 && x.LastApply.Error == "" })
}

// What others change in the kernel, and a new address of the node, are reasons for a pass.
func TestAPassWithoutAChangeOfServices(t *testing.T) {
	s := newStage(t)
	var mu sync.Mutex
	local := []netip.Addr{addr("192.0.2.1")}
	s.Local = func() ([]netip.Addr, error) {
		mu.Lock()
		defer mu.Unlock()
		return local, nil
	}
	s.Options.EveryAddress = true
	s.fill("10.244.1.1")
	s.run()
	s.next()
	s.await("served", func(x observe.Services) bool { return x.Services == 1 })
	for len(s.kernel.passes) > 0 {
		s.next()
	}
	s.kernel.changed.Set()
	nodePorts := func(want ...string) func(*service.Model) bool {
		return func(m *service.Model) bool { return fmt.Sprint(m.IPv4.NodeAddresses) == fmt.Sprint(want) }
	}
	s.until("node ports at the first address", nodePorts("192.0.2.1"))
	mu.Lock()
	local = []netip.Addr{addr("192.0.2.1"), addr("198.51.100.7")}
	mu.Unlock()
	s.Moved.Set()
	s.until("node ports at both addresses", nodePorts("192.0.2.1", "198.51.100.7"))
}

func TestProblemsOfTheNode(t *testing.T) {
	s := newStage(t)
	s.APIServer = netip.AddrPortFrom(vip(), 80)
	s.Options.ServiceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	s.Options.ClusterPods = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	s.fill("10.244.1.1")
	s.Store.Update(func(tx *cluster.Tx) { tx.DeleteNode("n1") })
	s.run()
	s.next()
	s.await("served", func(x observe.Services) bool { return x.Services == 1 })
	want := []string{`Services of this node: there is no Node "n1"`, "way to the API server: the agent reaches the API server",
		"range of Services: 10.0.0.0/8 holds addresses of pods, 10.244.0.0/16"}
	text := ""
	for _, p := range s.Observer.Status().Problems {
		text += p.String() + "\n"
		if p.Blocking {
			t.Errorf("%s blocks", p.Subject)
		}
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("the problems are\n%swithout %q", text, w)
		}
	}
	s.fill("10.244.1.2") // with its Node
	s.await("no problem of the Node", func(observe.Services) bool {
		return !slices.ContainsFunc(s.Observer.Status().Problems, func(p observe.Problem) bool {
			return p.Subject == "Services of this node"
		})
	})
}

// The names of the counters are those of the rules.
func TestRefusalsHaveTheNamesOfTheCounters(t *testing.T) {
	var names []string
	for name := range strings.FieldsSeq(strings.Join(ruleset.Render(&program.Program{Family: inet.IPv4},
		ruleset.Settings{}).Counters, " ")) {
		names = append(names, name)
	}
	slices.Sort(names)
	if got := observe.ServiceDropReasons(); !slices.Equal(got, names) {
		t.Errorf("refusals are named %v, the counters %v", got, names)
	}
}

func TestWhereNodePortsAre(t *testing.T) {
	local := []netip.Addr{addr("127.0.0.1"), addr("192.0.2.1"), addr("192.0.2.9"), addr("2001:db8::1"), addr("fe80::1")}
	node := &cluster.Node{Name: "n1", Addrs: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.9"), addr("2001:db8::5")}}
	for _, tt := range []struct {
		name  string
		every bool
		node  *cluster.Node
		want  []netip.Addr
	}{
		{"at the first address of a family that this machine has", false, node, []netip.Addr{addr("192.0.2.1")}},
		{"at every address", true, node, []netip.Addr{addr("192.0.2.1"), addr("192.0.2.9"), addr("2001:db8::1")}},
		{"nowhere without a Node", false, nil, nil},
	} {
		o := Options{Node: "n1", EveryAddress: tt.every}
		if got := o.settings(tt.node, local, nil).NodePortAddresses; !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// While the addresses cannot be read nothing changes in the kernel, so the node is not ready and the load
// balancers are told.
func TestUnreadableAddressesAreAFailure(t *testing.T) {
	s := newStage(t)
	told := &healthNotes{}
	s.Health, s.PortsChanged = told, wake.New()
	var broken atomic.Bool
	local := s.Local
	s.Local = func() ([]netip.Addr, error) {
		if broken.Load() {
			return nil, errors.New("no buffer space")
		}
		return local()
	}
	s.fill("10.244.1.1")
	s.run()
	s.next()
	s.await("served", func(x observe.Services) bool { return x.Services == 1 })
	broken.Store(true)
	s.Moved.Set()
	s.await("failed", func(x observe.Services) bool { return x.LastApply.Error != "" })
	if why := s.notReady(); !strings.Contains(why, "cannot be read: no buffer space") {
		t.Errorf("the node is not ready because %q", why)
	}
	if p := told.last(); p.Pending.IsZero() {
		t.Error("load balancers are not told that a change waits")
	}
	broken.Store(false)
	s.await("served again", func(x observe.Services) bool { return x.LastApply.Error == "" })
	if p := told.last(); !p.Pending.IsZero() {
		t.Error("load balancers are told that a change still waits")
	}
}

// healthNotes are what load balancers may ask.
type healthNotes struct {
	mu    sync.Mutex
	proxy health.Proxy
}

func (h *healthNotes) SetServices([]service.Health) {}
func (h *healthNotes) Problems() []health.Problem   { return nil }

func (h *healthNotes) SetProxy(p health.Proxy) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.proxy = p
}

func (h *healthNotes) last() health.Proxy {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.proxy
}

// Each pod's interface has a link-local address: a new pod is no reason to compute all Services again.
func TestLinkLocalAddressesChangeNoSettings(t *testing.T) {
	local := []netip.Addr{addr("127.0.0.1"), addr("192.0.2.1")}
	for _, every := range []bool{false, true} {
		o := Options{Node: "n1", EveryAddress: every}
		before, after := o.settings(nil, local, nil), o.settings(nil, append(slices.Clone(local), addr("fe80::1")), nil)
		if diff := cmp.Diff(before, after, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("settings (-before +after):\n%s", diff)
		}
	}
}

// A namespace has no more findings in the status than it has about policies.
func TestFindingsOfANamespaceAreBounded(t *testing.T) {
	s := newStage(t)
	s.Store.Update(func(tx *cluster.Tx) {
		for i := range 300 {
			ip := netip.AddrFrom4([4]byte{10, 97, byte(i >> 8), byte(i)})
			tx.SetService(&cluster.Service{Key: cluster.Key{Namespace: "greedy", Name: fmt.Sprint("s", i)},
				ClusterIPs: []netip.Addr{ip}, Ports: []cluster.ServicePort{{Protocol: cluster.TCP, Port: 80}},
				External: &cluster.External{IPs: []netip.Addr{addr("198.51.100.1")}}})
		}
	})
	s.fill("10.244.1.1")
	s.run()
	s.next()
	s.await("served", func(x observe.Services) bool { return x.Services == 301 })
	found := s.Observer.Status().Services.Diagnostics
	if n := len(found); n != 100 || !strings.Contains(found[n-1].Message, "(and 200 more findings in this namespace)") {
		t.Errorf("%d findings, the last one is %v", n, found[n-1])
	}
}

// Connections that cannot be ended are a problem and tried again; Services are served all the same.
func TestConnectionsThatCannotBeEndedAreTriedAgain(t *testing.T) {
	s := newStage(t)
	s.fill("10.244.1.1")
	s.kernel.left = errors.New("no such table")
	s.run()
	problem := func(p observe.Problem) bool { return p.Subject == "connections of Services" && !p.Blocking }
	has := func(observe.Services) bool { return slices.ContainsFunc(s.Observer.Status().Problems, problem) }
	s.await("a problem, and served", func(x observe.Services) bool { return x.Services == 1 && has(x) })
	if why := s.notReady(); strings.Contains(why, "Service") {
		t.Errorf("the node is not ready because %q", why)
	}
	s.kernel.mu.Lock()
	s.kernel.left = nil
	s.kernel.mu.Unlock()
	s.await("no problem", func(x observe.Services) bool { return !has(x) })
}

// Connections that wait for a scan have a pass of their own, although nothing changes.
func TestConnectionsThatWaitHaveAPass(t *testing.T) {
	s := newStage(t)
	s.fill("10.244.1.1")
	s.kernel.waiting = 20
	s.run()
	for range 21 {
		s.next()
	}
}

// A scan of the connection table has a rest of its own: the next change does not wait for it.
func TestAPassDoesNotRestForItsScan(t *testing.T) {
	s := newStage(t)
	s.fill("10.244.1.1")
	s.kernel.scan = time.Hour
	s.index = service.NewIndex(s.settings)
	if err := s.pass(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := s.rest.Left(); left != 0 {
		t.Errorf("it rests %s", left)
	}
}

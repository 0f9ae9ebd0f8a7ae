// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	. "github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
)

func keeping(steps ...func(*Tx)) *Store {
	s := NewStore()
	s.KeepServices()
	for _, step := range steps {
		s.Update(step)
	}
	return s
}

// woken takes a wake-up and reports whether there was one.
func woken(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func aPod(ip string, set ...func(*Pod)) func(*Tx) {
	p := &Pod{Key: Key{Namespace: "shop", Name: "p"}, IPs: addrs(ip)}
	for _, f := range set {
		f(p)
	}
	return func(tx *Tx) { tx.SetPod(p) }
}

func aService(affinity uint32) func(*Tx) {
	return func(tx *Tx) {
		tx.SetService(&Service{Key: Key{Namespace: "shop", Name: "web"}, Affinity: affinity})
	}
}

func aSlice(triggered int64, ips ...string) func(*Tx) {
	s := &EndpointSlice{Key: Key{Namespace: "shop", Name: "web-1"}, Service: "web", Triggered: triggered}
	for _, a := range addrs(ips...) {
		s.Endpoints = append(s.Endpoints, Endpoint{Addr: a, Placement: &Placement{Ready: true}})
	}
	return func(tx *Tx) { tx.SetEndpointSlice(s) }
}

func aNode(set func(*Node)) func(*Tx) {
	n := &Node{Name: "n", Addrs: addrs("192.0.2.1")}
	set(n)
	return func(tx *Tx) { tx.SetNode(n) }
}

// Each reader is woken, and gets a new revision, by what it needs and by nothing else.
func TestEachReaderIsWokenByWhatItNeeds(t *testing.T) {
	finding := []Diagnostic{{Kind: "Service", Message: "m"}}
	for _, tt := range []struct {
		name               string
		step               func(*Tx)
		policies, services bool
	}{
		{"a Service", aService(1), false, true},
		{"an equal Service", aService(0), false, false},
		{"the Services are replaced", func(tx *Tx) { tx.ReplaceServices(nil) }, false, true},
		{"a Service goes", func(tx *Tx) { tx.DeleteService(Key{"shop", "web"}) }, false, true},
		{"an unknown Service goes", func(tx *Tx) { tx.DeleteService(Key{"shop", "x"}) }, false, false},
		{"a slice", aSlice(0, "10.0.0.2"), false, true},
		{"a slice that was written again without a change", aSlice(7, "10.0.0.1"), false, false},
		{"the slices are replaced", func(tx *Tx) { tx.ReplaceEndpointSlices(nil) }, false, true},
		{"a slice goes", func(tx *Tx) { tx.DeleteEndpointSlice(Key{"shop", "web-1"}) }, false, true},
		{"a finding about a Service", func(tx *Tx) { tx.SetServiceDiagnostics("o", finding) }, false, true},
		{"a finding about something else", func(tx *Tx) { tx.SetDiagnostics("o", finding) }, true, false},
		{"the first list of Services", func(tx *Tx) { tx.SetSynced(Services) }, false, true},
		{"the first list of pods", func(tx *Tx) { tx.SetSynced(Pods) }, true, true},
		{"the first list of policies", func(tx *Tx) { tx.SetSynced(Policies) }, true, false},
		{"a policy", func(tx *Tx) { tx.SetPolicy(&Policy{Key: Key{"shop", "x"}}) }, true, false},
		{"another address of a pod", aPod("10.0.0.2"), true, true},
		{"another label of a pod", aPod("10.0.0.1", func(p *Pod) { p.Labels = Labels{{"a", "b"}} }), true, false},
		{"a pod that ends", aPod("10.0.0.1", func(p *Pod) { p.Terminating = true }), true, false},
		{"a pod that has finished", aPod("10.0.0.1", func(p *Pod) { p.Finished = true }), true, true},
		{"a pod goes", func(tx *Tx) { tx.DeletePod(Key{"shop", "p"}) }, true, true},
		{"a pod on the host's network", func(tx *Tx) {
			tx.SetPod(&Pod{Key: Key{"shop", "h"}, IPs: addrs("192.0.2.1"), HostNetwork: true})
		}, true, false},
		{"an equal node", aNode(func(*Node) {}), false, false},
		{"another address of a node", aNode(func(n *Node) { n.Addrs = addrs("192.0.2.9") }), true, true},
		{"another zone", aNode(func(n *Node) { n.Zone = "z" }), false, true},
		{"another range of pods", aNode(func(n *Node) {
			n.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
		}), false, true},
		{"a node that leaves", aNode(func(n *Node) { n.Leaving = true }), false, true},
		{"a node goes", func(tx *Tx) { tx.DeleteNode("n") }, true, true},
	} {
		s := keeping(aService(0), aSlice(0, "10.0.0.1"), aPod("10.0.0.1"), aNode(func(*Node) {}))
		before, servicesBefore := s.Take().Revision, s.TakeServices().Revision
		woken(s.Changed())
		woken(s.ServicesChanged())
		s.Update(tt.step)
		if got := woken(s.Changed()); got != tt.policies || (s.Take().Revision != before) != tt.policies {
			t.Errorf("%s: the reader for policies is woken: %t, want %t", tt.name, got, tt.policies)
		}
		if got := woken(s.ServicesChanged()); got != tt.services || (s.TakeServices().Revision != servicesBefore) != got {
			t.Errorf("%s: the reader for Services is woken: %t, want %t", tt.name, got, tt.services)
		}
	}
}

func TestWithoutAProxyNothingIsKeptForIt(t *testing.T) {
	s := NewStore()
	for _, step := range []func(*Tx){aService(1), aSlice(1, "10.0.0.1"), aPod("10.0.0.1"),
		func(tx *Tx) { tx.ReplaceServices([]*Service{{Key: Key{"a", "b"}}}) },
		func(tx *Tx) { tx.ReplaceEndpointSlices([]*EndpointSlice{{Key: Key{"a", "b"}}}) },
		func(tx *Tx) { tx.SetServiceDiagnostics("o", []Diagnostic{{Message: "m"}}) }} {
		s.Update(step)
	}
	snap, d := s.ServiceSnapshot(), s.TakeServices()
	if len(snap.Services)+len(snap.Slices) > 0 || d.Revision != 0 || len(d.Pods)+len(d.Diagnostics) > 0 {
		t.Errorf("kept are %+v and %+v", snap, d)
	}
	if woken(s.ServicesChanged()) {
		t.Error("a proxy is woken")
	}
}

func TestServicesAreMissingApartFromPolicies(t *testing.T) {
	s := keeping()
	for _, step := range []struct {
		synced             Kind
		policies, services string
	}{
		{Policies, "[namespaces pods nodes]", "[services endpointslices nodes pods]"},
		{Nodes, "[namespaces pods]", "[services endpointslices pods]"},
		{Services, "[namespaces pods]", "[endpointslices pods]"},
		{Pods, "[namespaces]", "[endpointslices]"},
		{Namespaces, "[]", "[endpointslices]"},
		{EndpointSlices, "[]", "[]"},
	} {
		s.Update(func(tx *Tx) { tx.SetSynced(step.synced) })
		if got := fmt.Sprint(s.Missing()); got != step.policies {
			t.Errorf("after %s policies wait for %s, want %s", step.synced, got, step.policies)
		}
		if got := fmt.Sprint(s.MissingServices()); got != step.services {
			t.Errorf("after %s Services wait for %s, want %s", step.synced, got, step.services)
		}
	}
}

func TestTheTimesOfTriggersAreOfChanges(t *testing.T) {
	s := keeping(aSlice(1, "10.0.0.1"))
	s.SetClock(func() int64 { return 42 })
	if d := s.TakeServices(); d.Triggered != nil {
		t.Errorf("the first delta has the times %v", d.Triggered)
	}
	again := &EndpointSlice{Key: Key{"shop", "web-1"}, Service: "web", Triggered: 9}
	for _, step := range []func(*Tx){
		aSlice(2, "10.0.0.1"),             // equal
		aSlice(3, "10.0.0.2"),             // counts
		aSlice(3, "10.0.0.3"),             // changed by somebody else
		aSlice(0, "10.0.0.4"),             // does not say
		aSlice(4, "10.0.0.5", "10.0.0.6"), // counts
		func(tx *Tx) { tx.ReplaceEndpointSlices([]*EndpointSlice{again}) }, // counts
		func(tx *Tx) { tx.ReplaceEndpointSlices([]*EndpointSlice{again}) },
		func(tx *Tx) { tx.ReplaceEndpointSlices(nil) },
	} {
		s.Update(step)
	}
	d := s.TakeServices()
	if !slices.Equal(d.Triggered, []int64{3, 4, 9}) || d.Since != 42 {
		t.Errorf("the times are %v since %d, want [3 4 9] since 42", d.Triggered, d.Since)
	}
	if d := s.TakeServices(); d.Triggered != nil || d.Since != 0 {
		t.Errorf("they are told twice: %v since %d", d.Triggered, d.Since)
	}
	for i := range MaxTriggers + 10 {
		s.Update(aSlice(int64(100+i), fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)))
	}
	if d := s.TakeServices(); len(d.Triggered) != MaxTriggers {
		t.Errorf("%d times are kept, want %d", len(d.Triggered), MaxTriggers)
	}
}

// replica is what somebody knows who saw nothing but deltas.
type replica struct {
	services map[Key]*Service
	slices   map[Key]*EndpointSlice
	nodes    map[Key]*Node
	pods     map[Key][]netip.Addr
}

func follow[T, V any](t *rapid.T, m map[Key]V, list []Change[T], key func(*T) Key, value func(*T) V) {
	for _, c := range list {
		of := c.New
		if of == nil {
			of = c.Old
		}
		k := key(of)
		has, there := m[k]
		if there != (c.Old != nil) || there && !same(has, value(c.Old)) {
			t.Fatalf("of %s the reader has %v, and Old is %v", k, has, c.Old)
		}
		if m[k] = value(of); c.New == nil {
			delete(m, k)
		}
	}
}

func itself[T any](v *T) *T { return v }

func same(a, b any) bool {
	return cmp.Equal(a, b, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }))
}

func (r *replica) apply(t *rapid.T, d ServiceDelta) {
	follow(t, r.services, d.Services, func(v *Service) Key { return v.Key }, itself)
	follow(t, r.slices, d.Slices, func(v *EndpointSlice) Key { return v.Key }, itself)
	follow(t, r.nodes, d.Nodes, func(v *Node) Key { return Key{Name: v.Name} }, itself)
	for i := range d.Pods { // a pod on the host's network is none
		c := &d.Pods[i]
		if !c.Old.Networked() {
			c.Old = nil
		}
		if !c.New.Networked() && c.New != nil {
			c.New, c.Old = nil, &Pod{Key: c.New.Key, IPs: c.Old.IPs}
		}
	}
	follow(t, r.pods, d.Pods, func(v *Pod) Key { return v.Key }, func(v *Pod) []netip.Addr { return v.IPs })
}

// differs compares with the whole.
func (r *replica) differs(s *ServiceSnapshot) string {
	whole := &replica{map[Key]*Service{}, map[Key]*EndpointSlice{}, map[Key]*Node{}, map[Key][]netip.Addr{}}
	for _, v := range s.Services {
		whole.services[v.Key] = v
	}
	for _, v := range s.Slices {
		whole.slices[v.Key] = v
	}
	for _, v := range s.Nodes {
		whole.nodes[Key{Name: v.Name}] = v
	}
	for _, v := range s.Pods {
		whole.pods[v.Key] = v.IPs
	}
	return cmp.Diff(whole, r, cmp.AllowUnexported(replica{}),
		cmp.Comparer(func(x, y netip.Addr) bool { return x == y }), cmp.Comparer((*EndpointSlice).Equal))
}

func TestDeltasOfServicesAddUpToTheSnapshot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, world := keeping(), &gen.Services{}
		has := &replica{map[Key]*Service{}, map[Key]*EndpointSlice{}, map[Key]*Node{}, map[Key][]netip.Addr{}}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			step(t, s, world)
			switch rapid.IntRange(0, 4).Draw(t, "reads") {
			case 0:
				s.Take() // the other reader's business
			case 1, 2:
				before := has.differs(s.ServiceSnapshot())
				if rings := woken(s.ServicesChanged()); before != "" && !rings {
					t.Fatalf("nobody is woken for this change (-now +known):\n%s", before)
				}
				has.apply(t, s.TakeServices())
				if diff := has.differs(s.ServiceSnapshot()); diff != "" {
					t.Fatalf("the deltas add up to something else (-want +got):\n%s", diff)
				}
			}
		}
		has.apply(t, s.TakeServices())
		if diff := has.differs(s.ServiceSnapshot()); diff != "" {
			t.Fatalf("the deltas add up to something else (-want +got):\n%s", diff)
		}
		want, got := world.Snapshot(t), s.ServiceSnapshot()
		if len(got.Services) != len(want.Services) || len(got.Slices) != len(want.Slices) || len(got.Nodes) != len(want.Nodes) {
			t.Fatalf("kept are %+v of %+v", got, want)
		}
	})
}

// step makes a random change, object by object or by lists.
// A reader that lost everything gets everything, whatever it has taken before, and then what changes. The reader of
// policies notices nothing.
func TestAReaderCanBeginAnew(t *testing.T) {
	s := keeping(aService(1), aSlice(0, "10.0.0.1"), aPod("10.0.0.1"), aNode(func(*Node) {}))
	s.Take()
	s.TakeServices()
	s.Update(aService(2))
	s.Update(func(tx *Tx) { tx.DeleteEndpointSlice(Key{Namespace: "shop", Name: "web-1"}) })
	s.RestartServices()
	d := s.TakeServices()
	if len(d.Services) != 1 || d.Services[0].Old != nil || d.Services[0].New.Affinity != 2 || len(d.Slices) != 0 ||
		len(d.Pods) != 1 || d.Pods[0].Old != nil || len(d.Nodes) != 1 || d.Nodes[0].Old != nil {
		t.Errorf("a reader that begins anew gets %+v", d)
	}
	s.Update(aService(3))
	d = s.TakeServices()
	if len(d.Services) != 1 || d.Services[0].Old.Affinity != 2 || len(d.Pods)+len(d.Nodes)+len(d.Slices) != 0 {
		t.Errorf("after that it gets %+v", d)
	}
	if p := s.Take(); len(p.Pods)+len(p.Nodes) != 0 {
		t.Errorf("the reader of policies gets %+v", p)
	}
	NewStore().RestartServices() // without Services it does nothing
}

func step(t *rapid.T, s *Store, world *gen.Services) {
	d := world.Change(t)
	if rapid.IntRange(1, 4).Draw(t, "lists") == 1 {
		all := world.Snapshot(t)
		s.Update(func(tx *Tx) {
			tx.ReplaceServices(all.Services)
			tx.ReplaceEndpointSlices(all.Slices)
			tx.ReplaceNodes(all.Nodes)
			tx.ReplacePods(all.Pods)
		})
		return
	}
	s.Update(func(tx *Tx) {
		store(d.Services, tx.SetService, func(v *Service) { tx.DeleteService(v.Key) })
		store(d.Slices, tx.SetEndpointSlice, func(v *EndpointSlice) { tx.DeleteEndpointSlice(v.Key) })
		store(d.Nodes, tx.SetNode, func(v *Node) { tx.DeleteNode(v.Name) })
		store(d.Pods, tx.SetPod, func(v *Pod) { tx.DeletePod(v.Key) })
	})
}

func store[T any](list []Change[T], set, remove func(*T)) {
	for _, c := range list {
		if c.New == nil {
			remove(c.Old)
		} else {
			set(c.New)
		}
	}
}

// A proxy costs no memory for each pod, whatever the other reader has seen.
func TestAPodTakesNoMoreWithAProxy(t *testing.T) {
	const count = 50_000
	list := make([]*Pod, count)
	for i := range list {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		list[i] = &Pod{Key: Key{Namespace: "shop", Name: fmt.Sprint("pod-", i)}, IPs: []netip.Addr{ip}}
	}
	size := func(s *Store) int64 {
		s.Update(func(tx *Tx) { tx.ReplacePods(list) })
		s.Take()
		s.TakeServices()
		for i := range list { // every pod changes, but not its address
			p := *list[i]
			p.Terminating = true
			s.Update(func(tx *Tx) { tx.SetPod(&p) })
			if i%100 == 0 {
				s.Take()
			}
		}
		s.Take()
		now := heap()
		runtime.KeepAlive(s)
		runtime.KeepAlive(list)
		return now
	}
	base := heap()
	off := size(NewStore()) - base
	base = heap()
	on := size(keeping()) - base
	t.Logf("a pod takes %d bytes, with a proxy %d", off/count, on/count)
	if on-off > 2*count {
		t.Errorf("a proxy takes %d bytes a pod", (on-off)/count)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

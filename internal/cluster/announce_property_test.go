// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// said is what the reference remembers of an announcement.
type said struct {
	cluster.Sandbox
	met   bool
	stale []netip.Addr
}

// reference says what counts in the plainest way: from the API's pods and the
// announcements in the order in which they came, all anew after every step.
type reference struct {
	api   map[cluster.Key]*cluster.Pod
	rooms []*said
}

func (r *reference) announce(s cluster.Sandbox) {
	for _, o := range r.rooms {
		if cmp.Equal(o.Sandbox, s, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
			return
		}
	}
	r.withdraw(s.ID)
	r.rooms = append(r.rooms, &said{Sandbox: s})
	r.look()
}

func (r *reference) withdraw(id string) {
	r.rooms = slices.DeleteFunc(r.rooms, func(o *said) bool { return o.ID == id })
}

// look lets announcements and objects meet.
func (r *reference) look() {
	for _, s := range r.rooms {
		if p := r.api[s.Pod]; p != nil && s.is(p) && !s.met {
			s.met, s.stale = true, p.IPs
		}
	}
}

func (s *said) is(p *cluster.Pod) bool {
	return p.Key == s.Pod && p.Node == s.Node && (s.UID == p.UID || s.UID == "" || p.UID == "")
}

func (s *said) says(p *cluster.Pod) []netip.Addr {
	if len(p.IPs) > 0 && !slices.Equal(p.IPs, s.stale) {
		return p.IPs
	}
	return s.IPs
}

// owner returns who has an address: the last sandbox that says so and that is
// not known to be over.
func (r *reference) owner(ip netip.Addr) *said {
	for i, s := range slices.Backward(r.rooms) {
		p := r.api[s.Pod]
		here := p != nil && s.is(p)
		later := slices.ContainsFunc(r.rooms[i+1:], func(o *said) bool {
			same := o.Pod == s.Pod && (o.UID == s.UID || o.UID == "" || s.UID == "")
			return here && o.is(p) || !here && same
		})
		switch {
		case later || !slices.Contains(s.IPs, ip):
		case !here && s.met:
		case here && (p.HostNetwork || p.Finished || !slices.Contains(s.says(p), ip)):
		default:
			return s
		}
	}
	return nil
}

// pods returns the pods as they count, as text.
func (r *reference) pods() []string {
	var list []string
	for _, p := range r.api {
		has := r.own(p)
		list = append(list, fmt.Sprintf("%s/%s on %s %v %t", p.Key, p.UID, p.Node, append(has, r.extra(p, has)...),
			p.Terminating))
	}
	slices.Sort(list)
	return list
}

// own returns a pod's addresses without further ones.
func (r *reference) own(p *cluster.Pod) (has []netip.Addr) {
	ips := p.IPs
	for _, s := range slices.Backward(r.rooms) {
		if s.is(p) && !p.HostNetwork && !p.Finished {
			ips = s.says(p)
			break
		}
	}
	for _, ip := range ips {
		if s := r.owner(ip); s == nil || s.is(p) || p.HostNetwork || p.Finished {
			has = append(has, ip)
		}
	}
	return has
}

// extra returns the further addresses that count of a pod that has the others.
func (r *reference) extra(p *cluster.Pod, has []netip.Addr) (list []netip.Addr) {
	e := p.Extra()
	if e == nil || len(has) == 0 || p.HostNetwork || p.Finished {
		return nil
	}
	for _, ip := range e.Addrs {
		free := !slices.Contains(has, ip) && extraRange.Contains(ip)
		if s := r.owner(ip); s != nil && !s.is(p) {
			free = false
		}
		for _, o := range r.api {
			if o.Key == p.Key || o.HostNetwork || o.Finished {
				continue
			}
			claims := o.Extra() != nil && slices.Contains(o.Extra().Addrs, ip) && len(r.own(o)) > 0
			rival := o.Node == p.Node || o.Key.Namespace != p.Key.Namespace
			free = free && !(claims && rival) && !slices.Contains(o.IPs, ip)
		}
		if free {
			list = append(list, ip)
		}
	}
	return list
}

// extraRange is what pods may have beside their own addresses.
var extraRange = netip.MustParsePrefix("10.0.0.0/29")

func texts(pods []*cluster.Pod) []string {
	var list []string
	for _, p := range pods {
		list = append(list, fmt.Sprintf("%s/%s on %s %v %t", p.Key, p.UID, p.Node, p.IPs, p.Terminating))
	}
	slices.Sort(list)
	return list
}

func drawIPs(t *rapid.T) []netip.Addr {
	all := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}
	n := rapid.IntRange(0, 2).Draw(t, "ips")
	first := rapid.IntRange(0, 2).Draw(t, "first")
	return slices.Clone(all[first:min(first+n, len(all))])
}

func drawPod(t *rapid.T) *cluster.Pod {
	p := gen.Pod(t)
	p.Key = cluster.Key{Namespace: rapid.SampledFrom([]string{"a", "a", "b"}).Draw(t, "namespace"),
		Name: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "pod")}
	p.UID = rapid.SampledFrom([]string{"1", "2"}).Draw(t, "uid")
	p.Node = rapid.SampledFrom([]string{"one", "one", "one", "two"}).Draw(t, "node")
	p.IPs = drawIPs(t)
	p.Declared = nil
	if rapid.IntRange(0, 3).Draw(t, "with extra") == 0 {
		all := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3"),
			netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::1")}
		first := rapid.IntRange(0, 3).Draw(t, "first extra")
		p.Declared = &cluster.Declared{Extra: &cluster.Extra{Addrs: all[first:min(first+2, len(all))]}}
	}
	return p
}

// step does one thing to both.
func (r *reference) step(t *rapid.T, tx *cluster.Tx) {
	switch rapid.SampledFrom([]string{"set", "set", "delete", "list", "announce", "announce", "announce", "withdraw",
		"other"}).Draw(t, "step") {
	case "set":
		p := drawPod(t)
		r.api[p.Key] = p
		tx.SetPod(p)
	case "delete":
		k := drawPod(t).Key
		delete(r.api, k)
		tx.DeletePod(k)
	case "list":
		r.api = map[cluster.Key]*cluster.Pod{}
		var list []*cluster.Pod
		for range rapid.IntRange(0, 3).Draw(t, "length") {
			p := drawPod(t)
			r.api[p.Key] = p
			list = append(list, p)
		}
		tx.ReplacePods(list)
	case "announce":
		p := drawPod(t)
		s := cluster.Sandbox{ID: rapid.SampledFrom([]string{"r", "s", "t"}).Draw(t, "sandbox"), Pod: p.Key, Node: "one",
			IPs: p.IPs,
			UID: rapid.SampledFrom([]string{"1", "2", ""}).Draw(t, "its uid")}
		r.announce(s)
		tx.Announce(s)
	case "withdraw":
		id := rapid.SampledFrom([]string{"r", "s", "t"}).Draw(t, "sandbox")
		r.withdraw(id)
		tx.Withdraw(id)
	default:
		tx.SetNamespace(gen.Namespace(t))
		tx.SetPolicy(gen.Policy(t))
	}
	r.look()
}

// Invariant 1 with announcements: whatever comes in whatever order, what counts
// is what the plain reading says, and the index that follows the changes equals
// the model of the whole.
func TestAnnouncementsInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store, index := cluster.NewStore(), policy.NewIndex("one")
		store.Allow(cluster.Allowance{Prefixes: []netip.Prefix{extraRange}})
		r := &reference{api: map[cluster.Key]*cluster.Pod{}}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			store.Update(func(tx *cluster.Tx) {
				for range rapid.IntRange(1, 3).Draw(t, "in one") {
					r.step(t, tx)
				}
			})
			snap := store.Snapshot()
			if diff := cmp.Diff(r.pods(), texts(snap.Pods)); diff != "" {
				t.Fatalf("pods that count (-want +got):\n%s\nannounced: %s", diff, r)
			}
			if rapid.Bool().Draw(t, "look") {
				index.Apply(store.Take())
				want := compile.Program(policy.Resolve(snap, "one"), compile.Options{}).String()
				got := compile.Program(index.Model(), compile.Options{}).String()
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("program from the snapshot (-), from the changes (+):\n%s", diff)
				}
			}
			checkPhases(t, store, r)
		}
	})
}

// checkPhases compares what is said of each sandbox with what its pod has.
func checkPhases(t *rapid.T, store *cluster.Store, r *reference) {
	t.Helper()
	snap := store.Snapshot()
	for _, s := range store.Sandboxes() {
		got := store.Sandbox(s.ID)
		i := slices.IndexFunc(snap.Pods, func(p *cluster.Pod) bool { return p.Key == s.Pod })
		has := i >= 0 && (&said{Sandbox: s}).is(snap.Pods[i])
		if (got.Phase == cluster.Waiting) == has {
			t.Fatalf("sandbox %+v is in phase %d, its object is here: %t", s, got.Phase, has)
		}
		if (got.Phase == cluster.Known) != (got.Revision > 0) || got.Revision > snap.Revision {
			t.Fatalf("sandbox %+v has status %+v at revision %d", s, got, snap.Revision)
		}
		if got.Phase != cluster.Known {
			continue
		}
		for _, ip := range s.IPs {
			if !slices.Contains(snap.Pods[i].IPs, ip) {
				t.Fatalf("sandbox %+v is known, but its pod has %v", s, snap.Pods[i].IPs)
			}
			if e := snap.Pods[i].Extra(); e != nil && slices.Contains(e.Addrs, ip) {
				continue // it may have it by its annotation, whatever became of the sandbox
			}
			if o := r.owner(ip); o == nil || !o.is(snap.Pods[i]) {
				t.Fatalf("sandbox %+v is known, but %s is owned by %+v", s, ip, o)
			}
		}
	}
}

func (r *reference) String() string {
	var list []string
	for _, s := range r.rooms {
		list = append(list, fmt.Sprintf("%+v", *s))
	}
	return strings.Join(list, "; ")
}

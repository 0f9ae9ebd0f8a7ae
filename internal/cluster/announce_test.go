// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func addrs(list ...string) (ips []netip.Addr) {
	for _, s := range list {
		ips = append(ips, netip.MustParseAddr(s))
	}
	return ips
}

// local returns a pod of node n with a UID, as the API has it.
func local(name, uid string, ips ...string) *Pod {
	return &Pod{Key: Key{"shop", name}, UID: uid, Node: "n", IPs: addrs(ips...)}
}

func finished(p *Pod) *Pod {
	p.Finished = true
	return p
}

func sandbox(id, name, uid string, ips ...string) Sandbox {
	return Sandbox{ID: id, Pod: Key{"shop", name}, UID: uid, Node: "n", IPs: addrs(ips...),
		Links: []string{"cni0", "veth1"}}
}

func announce(s Sandbox) func(*Tx)    { return func(tx *Tx) { tx.Announce(s) } }
func withdraw(id string) func(*Tx)    { return func(tx *Tx) { tx.Withdraw(id) } }
func relist(list ...*Pod) func(*Tx)   { return replace(list...) }
func gone(name string) func(tx *Tx)   { return remove(Key{"shop", name}) }
func elsewhere(p *Pod, n string) *Pod { p.Node = n; return p }

// listed returns what counts: name, UID and addresses of every pod.
func listed(s *Store) []string {
	var list []string
	for _, p := range s.Snapshot().Pods {
		text := p.Key.Name + "/" + p.UID
		for _, ip := range p.IPs {
			text += " " + ip.String()
		}
		list = append(list, text)
	}
	return list
}

func TestAnnouncedAddresses(t *testing.T) {
	tests := []struct {
		name  string
		steps []func(*Tx)
		want  []string
	}{
		{"fill a pod that has none", []func(*Tx){set(local("a", "1")),
			announce(sandbox("s", "a", "1", "10.0.0.1", "fd00::1"))}, []string{"a/1 10.0.0.1 fd00::1"}},
		{"wait for the pod's object", []func(*Tx){announce(sandbox("s", "a", "1", "10.0.0.1")), set(local("a", "1"))},
			[]string{"a/1 10.0.0.1"}},
		{"also for one that comes with a list", []func(*Tx){announce(sandbox("s", "a", "1", "10.0.0.1")),
			relist(local("a", "1"))}, []string{"a/1 10.0.0.1"}},
		{"stay when the object changes", []func(*Tx){set(local("a", "1")), announce(sandbox("s", "a", "1", "10.0.0.1")),
			set(&Pod{Key: Key{"shop", "a"}, UID: "1", Node: "n", Terminating: true})}, []string{"a/1 10.0.0.1"}},
		{"stay with a new list", []func(*Tx){set(local("a", "1")), announce(sandbox("s", "a", "1", "10.0.0.1")),
			relist(local("a", "1"))}, []string{"a/1 10.0.0.1"}},
		{"go with the sandbox", []func(*Tx){set(local("a", "1")), announce(sandbox("s", "a", "1", "10.0.0.1")),
			withdraw("s")}, []string{"a/1"}},
		{"yield to the API's own", []func(*Tx){set(local("a", "1")), announce(sandbox("s", "a", "1", "10.0.0.1")),
			set(local("a", "1", "10.0.0.2"))}, []string{"a/1 10.0.0.2"}},
		{"are kept by the API after the sandbox's end", []func(*Tx){set(local("a", "1")),
			announce(sandbox("s", "a", "1", "10.0.0.1")), set(local("a", "1", "10.0.0.1")), withdraw("s")},
			[]string{"a/1 10.0.0.1"}},
		{"are not for a pod of another UID", []func(*Tx){set(local("a", "0")),
			announce(sandbox("s", "a", "1", "10.0.0.1"))}, []string{"a/0"}},
		{"are for any UID when the runtime says none", []func(*Tx){set(local("a", "0")),
			announce(sandbox("s", "a", "", "10.0.0.1"))}, []string{"a/0 10.0.0.1"}},
		{"are not for a pod of another node", []func(*Tx){set(elsewhere(local("a", "1"), "m")),
			announce(sandbox("s", "a", "1", "10.0.0.1"))}, []string{"a/1"}},
		{"are not for a pod that finished", []func(*Tx){set(finished(local("a", "1"))),
			announce(sandbox("s", "a", "1", "10.0.0.1"))}, []string{"a/1"}},
		{"are the truth about a pod that is started again", []func(*Tx){set(local("a", "1", "10.0.0.5")),
			announce(sandbox("s", "a", "1", "10.0.0.6"))}, []string{"a/1 10.0.0.6"}},
		{"may be swapped by a reboot", []func(*Tx){set(local("a", "1", "10.0.0.1")), set(local("b", "2", "10.0.0.2")),
			announce(sandbox("s", "a", "1", "10.0.0.2")), announce(sandbox("t", "b", "2", "10.0.0.1"))},
			[]string{"a/1 10.0.0.2", "b/2 10.0.0.1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, tt.steps, tt.want) })
	}
}

func TestAnAddressIsAnnouncedWhileASandboxOwnsIt(t *testing.T) {
	s, ip := NewStore(), netip.MustParseAddr("10.0.0.1")
	for _, step := range []struct {
		change func(*Tx)
		want   bool
	}{
		{set(local("a", "1", "10.0.0.1")), false},
		{announce(sandbox("s", "b", "2", "10.0.0.1")), true},
		{set(local("b", "2")), true},
		{set(local("b", "2", "10.0.0.9")), false},
		{withdraw("s"), false},
	} {
		s.Update(step.change)
		if ifaces, got := s.Announced(ip); got != step.want || got != slices.Equal(ifaces, []string{"cni0", "veth1"}) {
			t.Errorf("announced is %t %v, want %t with the interfaces", got, ifaces, step.want)
		}
	}
}

func TestTheNewestSandboxOwnsAnAddress(t *testing.T) {
	old, young := local("old", "1", "10.0.0.1"), sandbox("s", "new", "2", "10.0.0.1")
	tests := []struct {
		name  string
		steps []func(*Tx)
		want  []string
	}{
		{"before the new pod is known", []func(*Tx){set(old), announce(young)}, []string{"old/1"}},
		{"after", []func(*Tx){set(old), announce(young), set(local("new", "2"))}, []string{"new/2 10.0.0.1", "old/1"}},
		{"also against a pod that is listed again", []func(*Tx){announce(young), set(local("new", "2")),
			relist(old, local("new", "2"))}, []string{"new/2 10.0.0.1", "old/1"}},
		{"against an older pod of the same name", []func(*Tx){set(local("new", "1", "10.0.0.1")), announce(young)},
			[]string{"new/1"}},
		{"one address of two", []func(*Tx){set(local("old", "1", "10.0.0.1", "fd00::1")), announce(young)},
			[]string{"old/1 fd00::1"}},
		{"against a pod of another node", []func(*Tx){set(elsewhere(local("old", "1", "10.0.0.1"), "m")),
			announce(young)}, []string{"old/1"}},
		{"until it is gone", []func(*Tx){set(old), announce(young), withdraw("s")}, []string{"old/1 10.0.0.1"}},
		{"until its pod is gone", []func(*Tx){set(old), announce(young), set(local("new", "2")), gone("new")},
			[]string{"old/1 10.0.0.1"}},
		{"until its pod finished", []func(*Tx){set(old), announce(young), set(finished(local("new", "2")))},
			[]string{"new/2", "old/1 10.0.0.1"}},
		{"not one that the API denies it", []func(*Tx){set(old), announce(young), set(local("new", "2")),
			set(local("new", "2", "10.0.0.9"))}, []string{"new/2 10.0.0.9", "old/1 10.0.0.1"}},
		{"the younger of two sandboxes", []func(*Tx){set(local("old", "1")), set(local("new", "2")),
			announce(sandbox("r", "old", "1", "10.0.0.1")), announce(young)}, []string{"new/2 10.0.0.1", "old/1"}},
		{"in that order", []func(*Tx){set(local("old", "1")), set(local("new", "2")), announce(young),
			announce(sandbox("r", "old", "1", "10.0.0.1"))}, []string{"new/2", "old/1 10.0.0.1"}},
		{"and gives it back to the older one", []func(*Tx){set(local("old", "1")), set(local("new", "2")),
			announce(sandbox("r", "old", "1", "10.0.0.1")), announce(young), withdraw("s")},
			[]string{"new/2", "old/1 10.0.0.1"}},
		{"announcing again makes nobody younger", []func(*Tx){set(local("old", "1")), set(local("new", "2")),
			announce(sandbox("r", "old", "1", "10.0.0.1")), announce(young),
			announce(sandbox("r", "old", "1", "10.0.0.1"))}, []string{"new/2 10.0.0.1", "old/1"}},
		{"a pod's second sandbox gives the first one's address back", []func(*Tx){set(old), announce(young),
			announce(sandbox("t", "new", "2", "10.0.0.2"))}, []string{"old/1 10.0.0.1"}},
		{"a late withdrawal leaves the second sandbox alone", []func(*Tx){set(local("new", "2")), announce(young),
			announce(sandbox("t", "new", "2", "10.0.0.1")), withdraw("s")}, []string{"new/2 10.0.0.1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, tt.steps, tt.want) })
	}
}

// expect runs the steps one by one and then, in a fresh store, as one batch.
// Sandboxes of which nobody says that they went do not pile up, and none that is
// needed goes for them.
func TestSandboxesThatNobodyWithdrawsAreForgotten(t *testing.T) {
	s := NewStore()
	s.Update(func(tx *Tx) {
		tx.SetPod(local("first", "1"))
		tx.Announce(sandbox("first", "first", "1", "10.0.0.1"))
		for i := range MaxAnnounced + 100 {
			name := fmt.Sprint("job", i)
			tx.SetPod(local(name, name))
			tx.Announce(sandbox(name, name, name, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String()))
			tx.DeletePod(Key{"shop", name})
		}
		tx.SetPod(local("last", "2"))
		tx.Announce(sandbox("last", "last", "2", "10.0.0.2"))
	})
	if n := len(s.Sandboxes()); n != MaxAnnounced {
		t.Errorf("%d sandboxes are remembered, want %d", n, MaxAnnounced)
	}
	if diff := cmp.Diff([]string{"first/1 10.0.0.1", "last/2 10.0.0.2"}, listed(s)); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	s.Update(func(tx *Tx) { // pods of which no object ever came
		for i := range MaxAnnounced + 100 {
			tx.Announce(sandbox(fmt.Sprint("ghost", i), fmt.Sprint("ghost", i), "",
				netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}).String()))
		}
	})
	if n := len(s.Sandboxes()); n != MaxAnnounced {
		t.Errorf("%d sandboxes are remembered, want %d", n, MaxAnnounced)
	}
}

func expect(t *testing.T, steps []func(*Tx), want []string) {
	t.Helper()
	single, batch := NewStore(), NewStore()
	for _, step := range steps {
		single.Update(step)
	}
	batch.Update(inOne(steps...))
	for how, s := range map[string]*Store{"one by one": single, "in one batch": batch} {
		if diff := cmp.Diff(want, listed(s)); diff != "" {
			t.Errorf("pods, %s (-want +got):\n%s", how, diff)
		}
	}
}

func TestASandboxIsKnownFromTheRevisionThatGaveItsPodTheAddresses(t *testing.T) {
	s := NewStore()
	steps := []struct {
		name   string
		change func(*Tx)
		want   SandboxStatus
	}{
		{"another pod", set(local("b", "2")), SandboxStatus{}},
		{"announced", announce(sandbox("s", "a", "1", "10.0.0.1")), SandboxStatus{Phase: Waiting}},
		{"an older pod of that name", set(local("a", "0")), SandboxStatus{Phase: Waiting}},
		{"the pod", set(local("a", "1")), SandboxStatus{Known, 3}},
		{"another pod changes", set(local("b", "3")), SandboxStatus{Known, 3}},
		{"the API has the address too", set(local("a", "1", "10.0.0.1")), SandboxStatus{Known, 3}},
		{"another sandbox takes the address", announce(sandbox("t", "b", "3", "10.0.0.1")),
			SandboxStatus{Phase: Superseded}},
		{"and goes", withdraw("t"), SandboxStatus{Known, 6}},
		{"the pod has a second sandbox", announce(sandbox("u", "a", "1", "10.0.0.1")),
			SandboxStatus{Phase: Superseded}},
		{"the first is withdrawn", withdraw("s"), SandboxStatus{}},
	}
	for _, step := range steps {
		s.Update(step.change)
		if got := s.Sandbox("s"); got != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
	if got := s.Sandboxes(); len(got) != 1 || got[0].ID != "u" {
		t.Errorf("announced are %v, want u", got)
	}
}

// A model never sees one address at two pods, not even between two changes.
func TestAnAddressMovesInOneDelta(t *testing.T) {
	s := NewStore()
	s.Update(inOne(set(local("old", "1", "10.0.0.1")), set(local("new", "2"))))
	s.Take()
	s.Update(announce(sandbox("s", "new", "2", "10.0.0.1")))
	var got []string
	for _, c := range s.Take().Pods {
		got = append(got, c.New.Key.Name)
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"new", "old"}, got); diff != "" {
		t.Errorf("changed pods (-want +got):\n%s", diff)
	}
}

func BenchmarkAnnounceInAHundredThousandPods(b *testing.B) {
	s := NewStore()
	s.Update(func(tx *Tx) {
		for i := range 100_000 {
			p := &Pod{Key: Key{"shop", "pod" + string(rune('a'+i%26)) +
				netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}).String()}, Node: "m",
				IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}}
			tx.SetPod(p)
		}
		tx.SetPod(local("a", "1"))
	})
	for b.Loop() {
		s.Update(announce(sandbox("s", "a", "1", "10.99.0.1")))
		s.Update(withdraw("s"))
		s.Take()
	}
}

// What the holders count is what a walk over all pods would find; else a walk
// comes too often, or an old pod keeps its address.
func TestHoldersCountWhatTheAPILists(t *testing.T) {
	s := NewStore()
	ip := netip.MustParseAddr("10.0.0.1")
	steps := []struct {
		name   string
		change func(*Tx)
		want   bool // somebody else has the address
	}{
		{"a pod", set(local("a", "1", "10.0.0.1")), true},
		{"the same again", set(local("a", "1", "10.0.0.1")), true},
		{"it gets another address", set(local("a", "1", "10.0.0.2")), false},
		{"and the old one", set(local("a", "1", "10.0.0.1")), true},
		{"it finishes", set(finished(local("a", "1", "10.0.0.1"))), false},
		{"a list with it twice", relist(local("a", "1", "10.0.0.1"), local("a", "1", "10.0.0.1")), true},
		{"a list without it", relist(local("b", "1", "10.0.0.2")), false},
		{"a list while something is announced", inOne(announce(sandbox("s", "c", "1", "10.0.0.3")),
			relist(local("a", "1", "10.0.0.1"), local("a", "1", "10.0.0.1"))), true},
		{"it goes", gone("a"), false},
	}
	for _, step := range steps {
		s.Update(step.change)
		if got := s.holders.others(ip, nil); got != step.want {
			t.Errorf("%s: others have it: %t, want %t", step.name, got, step.want)
		}
		if own := s.rawPod(Key{"shop", "a"}); s.holders.others(ip, own) {
			t.Errorf("%s: the pod is another one than itself", step.name)
		}
	}
	if len(s.holders) > 0 {
		t.Errorf("holders of nothing: %v", s.holders)
	}
}

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
)

// asking returns the pod with an annotation that asks for further addresses.
func asking(p *Pod, ips ...string) *Pod {
	p.Declared = &Declared{Extra: &Extra{Addrs: addrs(ips...)}}
	return p
}

func foreign(p *Pod) *Pod {
	p.Key.Namespace = "evil"
	return p
}

func allowing(prefix string) *Store {
	s := NewStore()
	s.Allow(Allowance{Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)},
		Hardware: []inet.HardwareRange{{Addr: inet.Hardware{0x52, 0x54}, Bits: 16}}})
	return s
}

func TestFurtherAddressesCountWhereTheyAreAllowedAndFree(t *testing.T) {
	a := func() *Pod { return asking(local("a", "1", "10.0.0.1"), "10.9.0.1", "10.8.0.1") }
	for _, tt := range []struct {
		name  string
		steps []func(*Tx)
		want  []string
	}{
		{"in the range", []func(*Tx){set(a())}, []string{"a/1 10.0.0.1 10.9.0.1"}},
		{"also claimed behind each other's back", []func(*Tx){relist(a(),
			foreign(asking(local("b", "2", "10.0.0.2"), "10.9.0.1"))), remove(Key{"evil", "b"})},
			[]string{"a/1 10.0.0.1 10.9.0.1"}},
		{"of a list", []func(*Tx){relist(a(), local("b", "2", "10.0.0.2"))},
			[]string{"a/1 10.0.0.1 10.9.0.1", "b/2 10.0.0.2"}},
		{"not without an own one", []func(*Tx){set(asking(local("a", "1"), "10.9.0.1"))}, []string{"a/1"}},
		{"beside an announced one", []func(*Tx){set(asking(local("a", "1"), "10.9.0.1")),
			announce(sandbox("s", "a", "1", "10.0.0.1"))},
			[]string{"a/1 10.0.0.1 10.9.0.1"}},
		{"not one of another pod", []func(*Tx){set(local("b", "2", "10.9.0.1")), set(a())},
			[]string{"a/1 10.0.0.1", "b/2 10.9.0.1"}},
		{"nor of one that comes later", []func(*Tx){set(a()), set(local("b", "2", "10.9.0.1"))},
			[]string{"a/1 10.0.0.1", "b/2 10.9.0.1"}},
		{"but when that one is gone", []func(*Tx){set(a()), set(local("b", "2", "10.9.0.1")), gone("b")},
			[]string{"a/1 10.0.0.1 10.9.0.1"}},
		{"nor of a sandbox", []func(*Tx){set(a()), announce(sandbox("s", "b", "2", "10.9.0.1"))},
			[]string{"a/1 10.0.0.1"}},
		{"nor one that two ask for", []func(*Tx){set(a()), set(asking(local("b", "2", "10.0.0.2"), "10.9.0.1"))},
			[]string{"a/1 10.0.0.1", "b/2 10.0.0.2"}},
		{"until one of them does not", []func(*Tx){set(a()), set(asking(local("b", "2", "10.0.0.2"), "10.9.0.1")),
			set(local("b", "2", "10.0.0.2"))},
			[]string{"a/1 10.0.0.1 10.9.0.1", "b/2 10.0.0.2"}},
		{"or ends", []func(*Tx){relist(a(), asking(local("b", "2", "10.0.0.2"), "10.9.0.1")),
			set(finished(asking(local("b", "2", "10.0.0.2"), "10.9.0.1")))},
			[]string{"a/1 10.0.0.1 10.9.0.1", "b/2 10.0.0.2"}},
		{"nor on two nodes, if it is of another namespace", []func(*Tx){set(a()),
			set(foreign(elsewhere(asking(local("b", "2", "10.0.0.2"), "10.9.0.1"), "m")))},
			[]string{"b/2 10.0.0.2", "a/1 10.0.0.1"}},
		{"but with one that has no address yet", []func(*Tx){set(a()), set(asking(local("b", "2"), "10.9.0.1"))},
			[]string{"a/1 10.0.0.1 10.9.0.1", "b/2"}},
		{"until that one has one", []func(*Tx){set(a()), set(asking(local("b", "2"), "10.9.0.1")),
			announce(sandbox("s", "b", "2", "10.0.0.2"))},
			[]string{"a/1 10.0.0.1", "b/2 10.0.0.2"}},
		{"but on two nodes", []func(*Tx){set(a()), set(elsewhere(asking(local("b", "2", "10.0.0.2"), "10.9.0.1"),
			"m"))},
			[]string{"a/1 10.0.0.1 10.9.0.1", "b/2 10.0.0.2 10.9.0.1"}},
		{"nor a reserved one", []func(*Tx){set(a()), reserve("n", "10.9.0.1")}, []string{"a/1 10.0.0.1"}},
		{"which is free again", []func(*Tx){reserve("n", "10.9.0.1"), set(a()), reserve("n")},
			[]string{"a/1 10.0.0.1 10.9.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for how, steps := range map[string][]func(*Tx){"one by one": tt.steps,
				"in one batch": {inOne(tt.steps...)}} {
				s := allowing("10.9.0.0/24")
				for _, step := range steps {
					s.Update(step)
				}
				if diff := cmp.Diff(tt.want, listed(s)); diff != "" {
					t.Errorf("pods, %s (-want +got):\n%s", how, diff)
				}
			}
		})
	}
}

func TestWhatOfAnAnnotationDoesNotCountIsNamed(t *testing.T) {
	p := asking(local("a", "1", "10.0.0.1"), "10.9.0.1", "10.8.0.1", "10.9.0.7", "10.9.0.9")
	p.Declared.Extra.Hardware = []inet.Hardware{{0x52, 0x54, 0, 0, 0, 1}, {2}}
	p.Declared.Extra.Unread = []string{`"x" is no address and no hardware address`}
	said := func(s *Store) (list []string) {
		for _, d := range s.Take().Diagnostics {
			if d.Object != p.Key || d.Field != "metadata.annotations[podwall.io/extra-addresses]" ||
				d.Severity != Error || d.Cure == "" {
				t.Errorf("said of %s %s: %s", d.Object, d.Field, d)
			}
			list = append(list, d.Message)
		}
		return list
	}
	s := allowing("10.9.0.0/24")
	s.Update(inOne(reserve("n", "10.9.0.9"), set(local("b", "2", "10.9.0.7")), set(p)))
	want := []string{
		`"x" is no address and no hardware address`,
		"02:00:00:00:00:00 is not counted as this pod's: it is in no range of --extra-addresses",
		"10.8.0.1 is not counted as this pod's: it is in no range of --extra-addresses",
		"10.9.0.7 is not counted as this pod's: it is the address of another pod",
		"10.9.0.9 is not counted as this pod's: it is an address of n",
	}
	if diff := cmp.Diff(want, said(s)); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
	if got := s.ExtraHardware("shop/a"); len(got) != 1 || got[0] != p.Declared.Extra.Hardware[0] ||
		s.ExtraHardware("shop/b") != nil {
		t.Errorf("further hardware addresses are %v", got)
	}
	s.Update(gone("a"))
	if got := said(s); len(got)+len(s.ExtraHardware("shop/a")) > 0 {
		t.Errorf("of a pod that is gone: %q, %v", got, s.ExtraHardware("shop/a"))
	}
	none := NewStore()
	none.Update(set(p))
	if got := strings.Join(said(none), "; "); got != "the annotation is not read: the agents run without --extra-addresses" {
		t.Errorf("without the flag: %q", got)
	}
}

// Who asks for an address that many ask for costs no more than one that few do: others
// are answered again only where the second came or went.
func TestManyWhoAskForOneAddressAreAnsweredOnce(t *testing.T) {
	s := allowing("10.9.0.0/24")
	pod := func(i int) *Pod {
		p := asking(local(fmt.Sprint("p", i), "", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()),
			"10.9.0.1", "10.9.0.2")
		return elsewhere(p, fmt.Sprint("n", i))
	}
	const many = 2000
	for i := range many {
		s.Update(set(pod(i)))
	}
	s.Take()
	changed := pod(7)
	changed.Labels = Labels{{"a", "b"}}
	s.Update(set(changed))
	if d := s.Take(); len(d.Pods) != 1 {
		t.Errorf("%d pods changed with one", len(d.Pods))
	}
	allocs := testing.AllocsPerRun(10, func() {
		s.Update(set(pod(7)))
		s.Update(set(changed))
	})
	if allocs > 200 {
		t.Errorf("two changes of one pod take %.0f allocations beside %d that ask for the same", allocs, many)
	}
}

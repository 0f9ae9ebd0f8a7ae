// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func reserve(origin string, list ...string) func(*Tx) {
	return func(tx *Tx) {
		why := map[netip.Addr]string{}
		for _, a := range addrs(list...) {
			why[a] = "an address of " + origin
		}
		tx.SetReserved(origin, why)
	}
}

func hosted(p *Pod) *Pod {
	p.HostNetwork = true
	return p
}

func TestReservedAddressesAreNoPods(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []func(*Tx)
		want  []string
	}{
		{"before the pod", []func(*Tx){reserve("n", "10.0.0.1"), set(local("a", "1", "10.0.0.1", "fd00::1"))},
			[]string{"a/1 fd00::1"}},
		{"after the pod", []func(*Tx){set(local("a", "1", "10.0.0.1", "10.0.0.2")), reserve("n", "10.0.0.1")},
			[]string{"a/1 10.0.0.2"}},
		{"of a list", []func(*Tx){reserve("n", "10.0.0.1"), relist(local("a", "1", "10.0.0.1"),
			local("b", "2", "10.0.0.2"))}, []string{"a/1", "b/2 10.0.0.2"}},
		{"after a list", []func(*Tx){relist(local("a", "1", "10.0.0.1")), reserve("n", "10.0.0.1")}, []string{"a/1"}},
		{"as long as they are reserved", []func(*Tx){set(local("a", "1", "10.0.0.1")), reserve("n", "10.0.0.1"),
			reserve("n", "10.0.0.7")}, []string{"a/1 10.0.0.1"}},
		{"after two lists", []func(*Tx){reserve("n", "10.0.0.1"), relist(local("a", "1", "10.0.0.1")),
			relist(local("a", "1", "10.0.0.1")), reserve("n")}, []string{"a/1 10.0.0.1"}},
		{"by one of several", []func(*Tx){set(local("a", "1", "10.0.0.1")), reserve("n", "10.0.0.1"),
			reserve("m", "10.0.0.1"), reserve("n")}, []string{"a/1"}},
		{"of another node's pod", []func(*Tx){set(elsewhere(local("a", "1", "10.0.0.1"), "m")),
			reserve("n", "10.0.0.1")}, []string{"a/1"}},
		{"but on the host's network", []func(*Tx){set(hosted(local("a", "1", "10.0.0.1"))), reserve("n", "10.0.0.1")},
			[]string{"a/1 10.0.0.1"}},
		{"also when announced", []func(*Tx){set(local("a", "1")),
			announce(sandbox("s", "a", "1", "10.0.0.1", "fd00::1")), reserve("n", "10.0.0.1")},
			[]string{"a/1 fd00::1"}},
		{"announced afterwards", []func(*Tx){reserve("n", "10.0.0.1"), set(local("a", "1")),
			announce(sandbox("s", "a", "1", "10.0.0.1")), relist(local("a", "1"))}, []string{"a/1"}},
		{"without a reservation", []func(*Tx){set(local("a", "1", "127.0.0.1", "224.0.0.5", "0.0.0.0",
			"255.255.255.255", "169.254.1.1", "::1", "ff02::1", "::", "fe80::1", "10.0.0.1"))},
			[]string{"a/1 10.0.0.1"}},
		{"until the pod goes", []func(*Tx){reserve("n", "10.0.0.1"), set(local("a", "1", "10.0.0.1")), gone("a")}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) { expect(t, tt.steps, tt.want) })
	}
}

func TestTheFirstAddressOfEachFamilyOfANodeIsReserved(t *testing.T) {
	node := func(list ...string) func(*Tx) {
		return func(tx *Tx) { tx.SetNode(&Node{Name: "m", Addrs: addrs(list...)}) }
	}
	pod := set(elsewhere(local("a", "1", "10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"), "m"))
	for _, tt := range []struct {
		name  string
		steps []func(*Tx)
		want  []string
	}{
		{"a Node", []func(*Tx){node("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"), pod},
			[]string{"a/1 10.0.0.2 fd00::2"}},
		{"a later Node", []func(*Tx){pod, node("10.0.0.1", "fd00::1")}, []string{"a/1 10.0.0.2 fd00::2"}},
		{"a Node that changes", []func(*Tx){node("10.0.0.1"), pod, node("10.0.0.2")},
			[]string{"a/1 10.0.0.1 fd00::1 fd00::2"}},
		{"a Node that goes", []func(*Tx){node("10.0.0.1"), pod, func(tx *Tx) { tx.DeleteNode("m") }},
			[]string{"a/1 10.0.0.1 10.0.0.2 fd00::1 fd00::2"}},
		{"a list of Nodes", []func(*Tx){pod, func(tx *Tx) {
			tx.ReplaceNodes([]*Node{{Name: "m",
				Addrs: addrs("fd00::2")}})
		}}, []string{"a/1 10.0.0.1 10.0.0.2 fd00::1"}},
	} {
		t.Run(tt.name, func(t *testing.T) { expect(t, tt.steps, tt.want) })
	}
}

func TestWhoClaimsAReservedAddressIsNamed(t *testing.T) {
	s := NewStore()
	said := func() (list []string) {
		for _, d := range s.Take().Diagnostics {
			list = append(list, d.String())
		}
		return list
	}
	s.Update(reserve("n", "10.0.0.1"))
	s.Update(set(local("a", "1", "10.0.0.9", "10.0.0.1")))
	want := []string{"error: Pod shop/a: status.podIPs[1]: 10.0.0.1 is an address of n, so it is not taken for the pod's; " +
		"find out who wrote this status, and delete the pod; if the pod really has the address, give the pod network a range of its own"}
	if diff := cmp.Diff(want, said()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, step := range map[string]func(*Tx){
		"corrected":             set(local("a", "1", "10.0.0.9")),
		"on the host's network": set(hosted(local("a", "1", "10.0.0.1"))),
		"gone":                  gone("a"), "gone with a list": relist(), "not reserved any more": reserve("n"),
	} {
		s.Update(func(tx *Tx) {
			reserve("n", "10.0.0.1")(tx)
			set(local("a", "1", "10.0.0.9", "10.0.0.1"))(tx)
		})
		if len(said()) != 1 {
			t.Errorf("before it is %s: nothing is said", name)
		}
		if s.Update(step); len(said()) != 0 {
			t.Errorf("it is %s, and said is %v", name, said())
		}
	}
}

func TestOfManyPodsThatClaimAnAddressSomeAreNamed(t *testing.T) {
	s := NewStore()
	s.Update(func(tx *Tx) {
		reserve("n", "10.0.0.1")(tx)
		for i := range maxLost + 7 {
			tx.SetPod(local(fmt.Sprint("p", i), "1", "10.0.0.1"))
		}
	})
	list := s.Take().Diagnostics
	if len(list) != maxLost+1 || !strings.HasPrefix(list[0].Message, "7 more pods") {
		t.Errorf("%d diagnostics, the first says %q", len(list), list[0].Message)
	}
}

func TestADiagnosticIsReadAsItIsWritten(t *testing.T) {
	for _, want := range []Diagnostic{{Severity: Warning, Message: "a"}, {Severity: Error, Object: Key{"shop", "a"}}} {
		text, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Diagnostic
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
	}
	if err := new(Severity).UnmarshalText([]byte("odd")); err == nil {
		t.Error("an unknown severity is read")
	}
}

// A reservation that changes wakes nobody whose pods it does not concern.
func TestAReservationOfNobodysAddressIsNoChange(t *testing.T) {
	s := NewStore()
	s.Update(set(local("a", "1", "10.0.0.1")))
	before := s.Take().Revision
	s.Update(reserve("n", "10.0.0.2"))
	if after := s.Take().Revision; after != before {
		t.Errorf("the revision went from %d to %d", before, after)
	}
}

// Whoever may write a Node object must not be able to take a pod's address.
func TestAnAnnouncedAddressYieldsToNoNodeObject(t *testing.T) {
	node := func(list ...string) func(*Tx) {
		return func(tx *Tx) { tx.SetNode(&Node{Name: "m", Addrs: addrs(list...)}) }
	}
	object, real := set(local("a", "1", "10.0.0.1")), announce(sandbox("s", "a", "1", "10.0.0.1"))
	for _, tt := range []struct {
		name  string
		steps []func(*Tx)
		want  []string
		said  int
	}{
		{"announced before", []func(*Tx){real, object, node("10.0.0.1")}, []string{"a/1 10.0.0.1"}, 0},
		{"announced later", []func(*Tx){node("10.0.0.1"), object, real}, []string{"a/1 10.0.0.1"}, 0},
		{"named by the API later", []func(*Tx){node("10.0.0.1"), set(local("a", "1")), real, object},
			[]string{"a/1 10.0.0.1"}, 0},
		{"not named by the API", []func(*Tx){node("10.0.0.1"), set(local("a", "1")), real}, []string{"a/1 10.0.0.1"},
			0},
		{"of a list", []func(*Tx){real, node("10.0.0.1"), relist(local("a", "1", "10.0.0.1"))},
			[]string{"a/1 10.0.0.1"}, 0},
		{"withdrawn", []func(*Tx){object, real, node("10.0.0.1"), withdraw("s")}, []string{"a/1"}, 1},
		{"the newest sandbox has another", []func(*Tx){node("10.0.0.1"), object, real,
			announce(sandbox("t", "a", "1", "10.0.0.2")), set(local("a", "1", "10.0.0.1", "10.0.0.2"))},
			[]string{"a/1 10.0.0.2"}, 1},
		{"of an earlier pod of the name", []func(*Tx){real, node("10.0.0.1"), set(local("a", "2", "10.0.0.1"))},
			[]string{"a/2"}, 1},
		{"only what is announced", []func(*Tx){real, set(local("a", "1", "10.0.0.1", "fd00::1")),
			node("10.0.0.1", "fd00::1")}, []string{"a/1 10.0.0.1"}, 1},
		{"of another pod", []func(*Tx){real, set(local("b", "2", "10.0.0.9")), node("10.0.0.9")}, []string{"b/2"}, 1},
		{"the node's own", []func(*Tx){object, real, node("10.0.0.1"), reserve("this node", "10.0.0.1")},
			[]string{"a/1"}, 1},
		{"not the node's own any more", []func(*Tx){object, real, reserve("this node", "10.0.0.1"), node("10.0.0.1"),
			reserve("this node")}, []string{"a/1 10.0.0.1"}, 0},
		{"nobody's", []func(*Tx){set(local("a", "1", "127.0.0.1")), announce(sandbox("s", "a", "1", "127.0.0.1")),
			node("127.0.0.1")}, []string{"a/1"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			expect(t, tt.steps, tt.want)
			s := NewStore()
			for _, step := range tt.steps {
				s.Update(step)
				s.Take()
			}
			if list := s.Take().Diagnostics; len(list) != tt.said {
				t.Errorf("said is %v, want %d", list, tt.said)
			}
		})
	}
}

// A sandbox that is forgotten because there are too many speaks for its pod no more.
func TestAForgottenSandboxKeepsNoAddress(t *testing.T) {
	s := NewStore()
	s.Update(func(tx *Tx) {
		tx.SetNode(&Node{Name: "m", Addrs: addrs("10.0.0.1")})
		for i := range MaxAnnounced {
			name, ip := fmt.Sprint("p", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)
			tx.SetPod(local(name, name, ip))
			tx.Announce(sandbox(name, name, name, ip))
		}
	})
	has := func(want string) {
		t.Helper()
		if !slices.Contains(listed(s), want) {
			t.Errorf("there is no %q", want)
		}
	}
	has("p0/p0 10.0.0.1")
	s.Update(announce(sandbox("new", "new", "new", "10.9.0.1")))
	has("p0/p0")
}

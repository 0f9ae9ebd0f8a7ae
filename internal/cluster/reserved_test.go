// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
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
		{"before the pod", []func(*Tx){reserve("n", "10.0.0.1"), set(local("a", "1", "10.0.0.1", "fd00::1"))}, []string{"a/1 fd00::1"}},
		{"after the pod", []func(*Tx){set(local("a", "1", "10.0.0.1", "10.0.0.2")), reserve("n", "10.0.0.1")}, []string{"a/1 10.0.0.2"}},
		{"of a list", []func(*Tx){reserve("n", "10.0.0.1"), relist(local("a", "1", "10.0.0.1"), local("b", "2", "10.0.0.2"))}, []string{"a/1", "b/2 10.0.0.2"}},
		{"after a list", []func(*Tx){relist(local("a", "1", "10.0.0.1")), reserve("n", "10.0.0.1")}, []string{"a/1"}},
		{"as long as they are reserved", []func(*Tx){set(local("a", "1", "10.0.0.1")), reserve("n", "10.0.0.1"), reserve("n", "10.0.0.7")}, []string{"a/1 10.0.0.1"}},
		{"after two lists", []func(*Tx){reserve("n", "10.0.0.1"), relist(local("a", "1", "10.0.0.1")), relist(local("a", "1", "10.0.0.1")), reserve("n")}, []string{"a/1 10.0.0.1"}},
		{"by one of several", []func(*Tx){set(local("a", "1", "10.0.0.1")), reserve("n", "10.0.0.1"), reserve("m", "10.0.0.1"), reserve("n")}, []string{"a/1"}},
		{"of another node's pod", []func(*Tx){set(elsewhere(local("a", "1", "10.0.0.1"), "m")), reserve("n", "10.0.0.1")}, []string{"a/1"}},
		{"but on the host's network", []func(*Tx){set(hosted(local("a", "1", "10.0.0.1"))), reserve("n", "10.0.0.1")}, []string{"a/1 10.0.0.1"}},
		{"also when announced", []func(*Tx){set(local("a", "1")), announce(sandbox("s", "a", "1", "10.0.0.1", "fd00::1")), reserve("n", "10.0.0.1")}, []string{"a/1 fd00::1"}},
		{"announced afterwards", []func(*Tx){reserve("n", "10.0.0.1"), set(local("a", "1")), announce(sandbox("s", "a", "1", "10.0.0.1")), relist(local("a", "1"))}, []string{"a/1"}},
		{"without a reservation", []func(*Tx){set(local("a", "1", "127.0.0.1", "224.0.0.5", "0.0.0.0", "255.255.255.255", "169.254.1.1", "::1", "ff02::1", "::", "fe80::1", "10.0.0.1"))}, []string{"a/1 10.0.0.1"}},
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
		{"a Node", []func(*Tx){node("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"), pod}, []string{"a/1 10.0.0.2 fd00::2"}},
		{"a later Node", []func(*Tx){pod, node("10.0.0.1", "fd00::1")}, []string{"a/1 10.0.0.2 fd00::2"}},
		{"a Node that changes", []func(*Tx){node("10.0.0.1"), pod, node("10.0.0.2")}, []string{"a/1 10.0.0.1 fd00::1 fd00::2"}},
		{"a Node that goes", []func(*Tx){node("10.0.0.1"), pod, func(tx *Tx) { tx.DeleteNode("m") }}, []string{"a/1 10.0.0.1 10.0.0.2 fd00::1 fd00::2"}},
		{"a list of Nodes", []func(*Tx){pod, func(tx *Tx) { tx.ReplaceNodes([]*Node{{Name: "m", Addrs: addrs("fd00::2")}}) }}, []string{"a/1 10.0.0.1 10.0.0.2 fd00::1"}},
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
		"corrected": set(local("a", "1", "10.0.0.9")), "on the host's network": set(hosted(local("a", "1", "10.0.0.1"))),
		"gone": gone("a"), "gone with a list": relist(), "not reserved any more": reserve("n"),
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

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func service(name string, list ...string) func(*Tx) {
	return func(tx *Tx) {
		tx.SetService(&Service{Key: Key{Namespace: "dns", Name: name}, ClusterIPs: addrs(list...)})
	}
}

func noService(name string) func(*Tx) {
	return func(tx *Tx) { tx.DeleteService(Key{Namespace: "dns", Name: name}) }
}

func services(list ...*Service) func(*Tx) {
	return func(tx *Tx) { tx.ReplaceServices(list) }
}

// withServices is a store that knows Services.
func withServices() *Store {
	s := NewStore()
	s.KeepServices()
	return s
}

func TestTheClusterAddressOfAServiceIsNoPods(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []func(*Tx)
		want  []string
	}{
		{"before the pod", []func(*Tx){service("a", "10.0.0.1", "fd00::1"), set(local("a", "1", "10.0.0.1", "fd00::2"))},
			[]string{"a/1 fd00::2"}},
		{"after the pod", []func(*Tx){set(local("a", "1", "10.0.0.1", "fd00::1")), service("a", "fd00::1")},
			[]string{"a/1 10.0.0.1"}},
		{"of another node's pod", []func(*Tx){set(elsewhere(local("a", "1", "10.0.0.1"), "m")), service("a", "10.0.0.1")},
			[]string{"a/1"}},
		{"after a list", []func(*Tx){set(local("a", "1", "10.0.0.1")),
			services(&Service{Key: Key{Namespace: "dns", Name: "a"}, ClusterIPs: addrs("10.0.0.1")})}, []string{"a/1"}},
		{"until the Service goes", []func(*Tx){service("a", "10.0.0.1"), set(local("a", "1", "10.0.0.1")), noService("a")},
			[]string{"a/1 10.0.0.1"}},
		{"until it has another one", []func(*Tx){service("a", "10.0.0.1"), set(local("a", "1", "10.0.0.1")),
			service("a", "10.0.0.2")}, []string{"a/1 10.0.0.1"}},
		{"until a list lacks it", []func(*Tx){service("a", "10.0.0.1"), set(local("a", "1", "10.0.0.1")), services()},
			[]string{"a/1 10.0.0.1"}},
		{"of one of two Services", []func(*Tx){service("a", "10.0.0.1"), service("b", "10.0.0.1"),
			set(local("a", "1", "10.0.0.1")), noService("a")}, []string{"a/1"}},
		{"but on the host's network", []func(*Tx){service("a", "10.0.0.1"), set(hosted(local("a", "1", "10.0.0.1")))},
			[]string{"a/1 10.0.0.1"}},
		{"but not if the runtime announced it", []func(*Tx){set(local("a", "1")),
			announce(sandbox("s", "a", "1", "10.0.0.1")), service("a", "10.0.0.1")}, []string{"a/1 10.0.0.1"}},
		{"other addresses of a Service are not reserved", []func(*Tx){set(local("a", "1", "10.0.0.1")), func(tx *Tx) {
			tx.SetService(&Service{Key: Key{Namespace: "dns", Name: "a"}, ClusterIPs: addrs("10.96.0.1"),
				External: &External{IPs: addrs("10.0.0.1"), LoadBalancerIPs: addrs("10.0.0.1")}})
		}}, []string{"a/1 10.0.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			single, batch := withServices(), withServices()
			for _, step := range tt.steps {
				single.Update(step)
			}
			batch.Update(inOne(tt.steps...))
			for how, s := range map[string]*Store{"one by one": single, "in one batch": batch} {
				if diff := cmp.Diff(tt.want, listed(s)); diff != "" {
					t.Errorf("pods, %s (-want +got):\n%s", how, diff)
				}
			}
		})
	}
}

func TestWhoClaimsAServicesAddressIsNamedWithIt(t *testing.T) {
	s := withServices()
	said := func() (text string) {
		for _, d := range s.Take().Diagnostics {
			text += d.String() + "\n"
		}
		return text
	}
	for _, step := range []struct {
		change func(*Tx)
		want   string
	}{
		{set(local("a", "1", "10.0.0.1")), ""},
		{service("b", "10.0.0.1"), "error: Pod shop/a: status.podIPs[0]: 10.0.0.1 is the address of Service dns/b,"},
		{service("a", "10.0.0.1"), "10.0.0.1 is the address of Service dns/a,"},
		{noService("a"), "10.0.0.1 is the address of Service dns/b,"},
		{noService("b"), ""},
	} {
		woken(s.Changed())
		s.Update(step.change)
		if step.want != "" && !woken(s.Changed()) {
			t.Errorf("want %q: nobody is woken", step.want)
		}
		if got := said(); !strings.Contains(got, step.want) || step.want == "" && got != "" {
			t.Errorf("said is %q, want %q", got, step.want)
		}
	}
}

func woken(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Services come by the thousand, and no pod claims their addresses.
func TestAServiceConcernsNoPolicy(t *testing.T) {
	s := withServices()
	s.Update(set(elsewhere(local("a", "1", "10.1.0.1"), "m")))
	s.Take()
	woken(s.Changed())
	for i := range 100 {
		s.Update(service("a", fmt.Sprintf("10.96.0.%d", i+1)))
	}
	if s.Update(noService("a")); woken(s.Changed()) || len(s.Take().Pods) != 0 {
		t.Error("the loop of the policies is woken, or places pods again")
	}
	if n := len(s.reserved.services); n != 0 {
		t.Errorf("%d addresses stay reserved", n)
	}
}

// The API has a pod before its address. What it claims then changes nothing of it.
func TestAClaimThatChangesNoPodIsNamedAtOnce(t *testing.T) {
	s := withServices()
	s.Update(func(tx *Tx) {
		service("a", "10.96.0.1")(tx)
		reserve("n", "10.0.0.1", "10.0.0.2")(tx)
		set(local("a", "1"))(tx)
	})
	s.Take()
	for _, step := range []struct {
		claims []string
		news   bool
	}{
		{[]string{"10.96.0.1"}, true}, {[]string{"10.96.0.1"}, false}, {[]string{"10.0.0.1"}, true},
		{[]string{"10.0.0.2"}, true}, {nil, true}, {nil, false},
	} {
		woken(s.Changed())
		s.Update(set(local("a", "1", step.claims...)))
		if got := woken(s.Changed()); got != step.news {
			t.Errorf("it claims %v: news are %t, want %t", step.claims, got, step.news)
		}
		if d := s.Take().Diagnostics; len(d) != len(step.claims) {
			t.Errorf("it claims %v, and said is %v", step.claims, d)
		}
	}
}

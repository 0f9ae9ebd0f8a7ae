// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/observe"
)

// giants are policies that isolate the stranger and cost as much as possible: just within the budget, and
// as large as the API server accepts.
func giants() map[string]func(edit int) *networkingv1.NetworkPolicy {
	return map[string]func(int) *networkingv1.NetworkPolicy{
		"peers and ports": func(i int) *networkingv1.NetworkPolicy {
			return giant(blocks(i, 8_000), ranges(8_000),
				false)
		},
		"selectors and ports": func(i int) *networkingv1.NetworkPolicy {
			return giant(selectors(i, 2_000),
				ranges(4_000), false)
		},
		"a giant selector": func(i int) *networkingv1.NetworkPolicy {
			return giant(values(i, 8_000), ranges(8_000),
				false)
		},
		"named ports": func(i int) *networkingv1.NetworkPolicy { return giant(nil, names(i, 16_000), true) },
		"exceptions": func(i int) *networkingv1.NetworkPolicy {
			return giant(exceptions(i, 16_000), nil,
				false)
		},
		"above the budget, 1.1 MB": func(i int) *networkingv1.NetworkPolicy {
			return giant(blocks(i, 15_000),
				ranges(15_000), false)
		},
		"above, of selectors alone": func(i int) *networkingv1.NetworkPolicy {
			return giant(selectors(i, 15_000), nil,
				true)
		},
	}
}

func giant(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
	egress bool) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Name: "giant"}}
	if egress {
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports}}
	} else {
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}}
	}
	return np
}

func blocks(edit, n int) (list []networkingv1.NetworkPolicyPeer) {
	for i := range n {
		cidr := fmt.Sprintf("20.%d.%d.%d/32", i>>7&255, i<<1&255, edit)
		list = append(list, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	return list
}

func exceptions(edit, n int) []networkingv1.NetworkPolicyPeer {
	b := &networkingv1.IPBlock{CIDR: "::/0"}
	for i := range n {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 23), byte(i >> 15), byte(i >> 7), byte(i << 1),
			15: byte(edit + 1)})
		b.Except = append(b.Except, a.String()+"/128")
	}
	return []networkingv1.NetworkPolicyPeer{{IPBlock: b}}
}

func selectors(edit, n int) (list []networkingv1.NetworkPolicyPeer) {
	for i := range n {
		list = append(list, networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{},
			PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("v%d-%d", edit, i)}}})
	}
	return list
}

func values(edit, n int) []networkingv1.NetworkPolicyPeer {
	in := metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpIn}
	for i := range n {
		in.Values = append(in.Values, fmt.Sprintf("v%d-%d", edit, i))
	}
	return []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{in}}}}
}

func ranges(n int) (list []networkingv1.NetworkPolicyPort) {
	for i := range n {
		port, last := intstr.FromInt32(int32(1+4*i)), int32(2+4*i)
		list = append(list, networkingv1.NetworkPolicyPort{Port: &port, EndPort: &last})
	}
	return list
}

func names(edit, n int) (list []networkingv1.NetworkPolicyPort) {
	for i := range n {
		name := intstr.FromString(fmt.Sprintf("n%x-%x", edit, i))
		list = append(list, networkingv1.NetworkPolicyPort{Port: &name})
	}
	return list
}

// A tenant writes the largest policies that the API accepts, edits them ten times a second, and deletes
// them. Another tenant's change is enforced at all times, the agent stays small, and it stops when told to,
// also in the middle.
func TestATenantsGiantPoliciesDelayNobodyElse(t *testing.T) {
	w := newAPIWorld(t)
	a := w.connect("")
	before := a.until("of the usual policies", func(s observe.Status) bool { return s.IsolatedPods == 2 }).IsolatedPods
	isolated := func(what string, n int) {
		a.until(what, func(s observe.Status) bool { return s.IsolatedPods == n })
	}
	for name, at := range giants() {
		t.Run(name, func(t *testing.T) {
			end := w.edit(t, at)
			isolated("of the giant", before+1)
			var took []time.Duration
			for i := range soak.Times(4, 40) {
				on := i%2 == 0
				start := time.Now()
				w.toggle(on)
				want := before + 1
				if on {
					want++
				}
				isolated("of the other tenant's policy", want)
				took = append(took, time.Since(start))
				time.Sleep(130 * time.Millisecond) // so that edits come between
			}
			end()
			isolated("that the giant is gone", before)
			slices.Sort(took)
			t.Logf("another tenant's change in force after %v in the middle, %v at most; agent at most %d MiB",
				took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), highWater(t, a)>>10)
		})
	}
	if kib := highWater(t, a); kib > 200<<10 {
		t.Errorf("the agent took %d MiB, more than 200", kib>>10)
	}
	end := w.edit(t, giants()["peers and ports"])
	start := time.Now()
	a.Signal(syscall.SIGTERM)
	select {
	case <-a.Ended():
	case <-time.After(patience):
		t.Fatal("SIGTERM is not obeyed")
	}
	t.Logf("SIGTERM obeyed after %v", time.Since(start).Round(time.Millisecond))
	end()
}

// edit creates the policy, changes it ten times a second until end is called, and deletes it.
func (w *apiWorld) edit(t *testing.T, at func(int) *networkingv1.NetworkPolicy) (end func()) {
	t.Helper()
	policies := w.client.NetworkingV1().NetworkPolicies("evil")
	_, err := policies.Create(t.Context(), at(0), metav1.CreateOptions{})
	check(t, err)
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for i := 1; i < 600; i++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			if _, err := policies.Update(t.Context(), at(i%250), metav1.UpdateOptions{}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	return func() {
		close(stop)
		running.Wait()
		check(t, policies.Delete(t.Context(), "giant", metav1.DeleteOptions{}))
	}
}

// highWater returns the agent's peak memory, in KiB.
func highWater(t *testing.T, a *agent) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.PID()))
	check(t, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	n, err := strconv.Atoi(string(m[1]))
	check(t, err)
	return n
}

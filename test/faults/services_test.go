// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// aService returns Service number i of a namespace, and its slice with two endpoints, which an edit changes.
func aService(namespace string, i, edit int) (*corev1.Service, *discoveryv1.EndpointSlice) {
	name, port, yes := fmt.Sprintf("s%d", i), int32(80), true
	vip := netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)})
	if namespace != "many" {
		vip = netip.AddrFrom4([4]byte{10, 111, byte(i >> 8), byte(i)})
	}
	end := func(n int) discoveryv1.Endpoint {
		a := netip.AddrFrom4([4]byte{10, 244, 128 | byte(n>>8), byte(n)})
		return discoveryv1.Endpoint{Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}}
	}
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: vip.String(), ClusterIPs: []string{vip.String()}, Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP}}}}
	proto, target := corev1.ProtocolTCP, int32(8080)
	e := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-x",
		Labels: map[string]string{discoveryv1.LabelServiceName: name}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports:     []discoveryv1.EndpointPort{{Port: &target, Protocol: &proto}},
		Endpoints: []discoveryv1.Endpoint{end(2 * i % 32000), end((2*i + 1 + edit) % 32000)}}
	return s, e
}

// commits receives the times at which the tables of Services changed in the kernel.
func (w *listWorld) commits() <-chan time.Time {
	w.t.Helper()
	ctx, stop := context.WithCancel(w.t.Context())
	seen, ended := make(chan time.Time, 1_000_000), make(chan error, 1)
	go func() {
		ended <- w.node().Do(func() error {
			return nft.Monitor(ctx, func(uint32) bool { return false },
				func(id nft.TableID) bool { return slices.Contains(ruleset.Tables(), id) },
				func(n nft.Notice) {
					if n.Table {
						seen <- time.Now()
					}
				})
		})
	}()
	w.t.Cleanup(func() {
		stop()
		check(w.t, <-ended)
	})
	return seen
}

// putService stores a Service and its slice.
func (w *listWorld) putService(namespace string, i, edit int) error {
	s, e := aService(namespace, i, edit)
	if edit == 0 {
		if _, err := w.server.Put(s); err != nil {
			return err
		}
	}
	_, err := w.server.Put(e)
	return err
}

// replace replaces an endpoint of a Service n times, and returns how long each took from the API server's event
// to the kernel's.
func (w *listWorld) replace(namespace string, n int, seen <-chan time.Time) (took []time.Duration) {
	w.t.Helper()
	for edit := range n {
		for len(seen) > 0 {
			<-seen
		}
		start := time.Now()
		check(w.t, w.putService(namespace, edit%10, edit+1))
		select {
		case at := <-seen:
			took = append(took, at.Sub(start))
		case <-time.After(patience):
			w.t.Fatal("a replaced endpoint did not reach the kernel")
		}
		time.Sleep(50 * time.Millisecond) // the loop rests after a change: this one shall not wait for it
	}
	slices.Sort(took)
	return took
}

// Many Services are served at once; a change of an endpoint costs its own elements, a restart sends nothing, and
// a tenant who makes all of them delays no other.
func TestManyServices(t *testing.T) {
	w := newListWorld(t)
	n, edits := soak.Times(300, 10_000), soak.Times(10, 200)
	for i := range 10 {
		check(t, w.putService("another", i, 0))
	}
	seen := w.commits()
	a := w.connect("--run-service-proxy=true", "--load-balancer-health-port=0")
	at := func(list []time.Duration, percent int) time.Duration {
		return list[(len(list)-1)*percent/100].Round(10 * time.Microsecond)
	}

	done := make(chan error, 1)
	began := time.Now()
	go func() {
		for i := range n {
			if err := w.putService("many", i, 0); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	meanwhile := w.changes(t, a, done)
	a.until("of all Services", func(s observe.Status) bool { return s.Services.Services >= n+10 })
	t.Logf("%d Services of one tenant made in %v; meanwhile %d changes of another, in force after %v in the middle, %v at "+
		"most", n, time.Since(began).Round(time.Millisecond), len(meanwhile), at(meanwhile, 50), at(meanwhile, 100))
	if most := at(meanwhile, 100); soak.Long() && most > time.Second {
		t.Errorf("another tenant's change took %v", most)
	}

	took := w.replace("many", edits, seen)
	t.Logf("an endpoint replaced among %d Services: in the kernel after %v in the middle, %v in 99 of 100, %v at most",
		n, at(took, 50), at(took, 99), at(took, 100))

	a.Kill()
	for len(seen) > 0 {
		<-seen
	}
	began = time.Now()
	a = w.connect("--run-service-proxy=true", "--load-balancer-health-port=0")
	s := a.until("of all Services", func(s observe.Status) bool { return s.Services.Services >= n+10 })
	time.Sleep(100 * time.Millisecond) // for notices on their way
	if len(seen) > 0 || s.Services.DriftRepairs != 0 {
		t.Errorf("a restart changed the tables, with %d repairs", s.Services.DriftRepairs)
	}
	t.Logf("after a restart served in %v, of which the pass took %.3f s; agent at most %d MiB",
		time.Since(began).Round(time.Millisecond), s.Services.LastApply.Seconds, highWater(t, a)>>10)
}

// changes changes the other tenant's endpoints until the first one is done, and returns how long each took until
// the agent said that it is in force.
func (w *listWorld) changes(t *testing.T, a *agent, done <-chan error) (took []time.Duration) {
	t.Helper()
	for edit, over := 1, false; !over || edit < 4; edit++ {
		select {
		case err := <-done:
			check(t, err)
			over = true
		default:
		}
		// It is among the first Services without endpoints, by name, or not.
		start := time.Now()
		_, slice := aService("another", 0, 0)
		if edit%2 == 1 {
			slice.Endpoints = nil
		}
		_, err := w.server.Put(slice)
		check(t, err)
		a.until("of the other tenant's endpoints", func(s observe.Status) bool {
			idle := slices.Contains(s.Services.WithoutEndpoints, "another/s0")
			return idle == (edit%2 == 1)
		})
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took
}

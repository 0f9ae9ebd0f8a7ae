// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

const (
	replicas = 4
	webPort  = 8080
	// callers use the replicas in turn, each with one request at a time.
	callers = 4
)

// rollout is a Deployment-like update under requests from a pod of the other node.
type rollout struct {
	*apiWorld
	mu     sync.Mutex // guards ready
	ready  []netip.AddrPort
	asked  atomic.Int64
	failed atomic.Int64 // no answer at all
	slow   atomic.Int64 // the first packet was lost, its retransmission was not
}

// In a rolling update every replica is replaced by a pod with a new address. A client on another node uses
// a pod as soon as the API has its endpoint, one write after this node's agent can learn its address.
// Without the start gate the two race. No request may fail; a first packet that came before the verdict is
// retransmitted by TCP after a second, and counted.
func TestARollingUpdateLosesNoRequest(t *testing.T) {
	api := newAPIWorld(t)
	if api == nil {
		return
	}
	w := &rollout{apiWorld: api}
	w.create(policy("web", "web", `policyTypes: [Ingress], ingress: [{ports: [{port: 8080}]}]`))
	w.connect("")
	if soak.Long() {
		spin(t, 4)
	}
	var pods []*webPod
	for i := range replicas {
		pods = append(pods, w.begin(i))
	}
	before := w.dropped()
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() { w.call(ctx, i) })
	}
	want := int64(soak.Times(200, 10_000))
	for i := replicas; i < 2*replicas || w.asked.Load() < want; i++ {
		pods = append(pods, w.begin(i))
		w.end(pods[0])
		pods = pods[1:]
	}
	stop()
	group.Wait()
	t.Logf("%d requests while pods were replaced: %d failed, %d were answered after a repetition; the rules dropped %d packets to unknown addresses",
		w.asked.Load(), w.failed.Load(), w.slow.Load(), w.dropped()-before)
	if n := w.failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed", n, w.asked.Load())
	}
}

// spin keeps that many processor's worth of programs running.
func spin(t *testing.T, n int) {
	t.Helper()
	for range n {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		check(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Wait() }) // killed with the test's context
	}
}

// dropped counts packets to addresses that no known pod has.
func (w *rollout) dropped() uint64 {
	w.t.Helper()
	counters, err := ruleset.Counters(w.table)
	check(w.t, err)
	return counters[ruleset.CounterUnknownPod]
}

type webPod struct {
	actor
	listener net.Listener
	at       netip.AddrPort
}

// begin does what a kubelet does: the network plugin wires the pod, its program starts, and the API gets
// address and readiness at once.
func (w *rollout) begin(i int) *webPod {
	t := w.t
	t.Helper()
	name := fmt.Sprintf("shop/web-%d", i)
	v4, v6 := netip.AddrFrom4([4]byte{10, 244, 1, byte(100 + i%100)}), netip.MustParseAddr(fmt.Sprintf("fd00:244:1::1:%x", i%100))
	p := &webPod{actor: actor{name, "node1", []netip.Addr{v4, v6}}, at: netip.AddrPortFrom(v4, webPort)}
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: key(name).Name, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "main", Image: "none"}}}}
	object, err := w.client.CoreV1().Pods("shop").Create(t.Context(), object, metav1.CreateOptions{})
	check(t, err)
	_, err = w.bed.AddPod(lab.PodSpec{Key: key(name), Node: "node1", IPs: p.addrs})
	check(t, err)
	p.listener, err = w.ns(name).Listen(t.Context(), "tcp", p.at.String())
	check(t, err)
	go answer(p.listener)
	time.Sleep(100 * time.Millisecond) // containers start
	object.Status = corev1.PodStatus{Phase: corev1.PodRunning, HostIP: w.bed.Node("node1").Addrs[0].String(), PodIP: v4.String(),
		PodIPs:     []corev1.PodIP{{IP: v4.String()}, {IP: v6.String()}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	_, err = w.client.CoreV1().Pods("shop").UpdateStatus(t.Context(), object, metav1.UpdateOptions{})
	check(t, err)
	w.publishEndpoint(key(name).Name, v4)
	w.mu.Lock()
	w.ready = append(w.ready, p.at)
	w.mu.Unlock()
	return p
}

// publishEndpoint does what the EndpointSlice controller does when a pod is ready: a proxy on another node
// learns the pod from this object.
func (w *rollout) publishEndpoint(name string, addr netip.Addr) {
	w.t.Helper()
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{addr.String()}}}}
	_, err := w.client.DiscoveryV1().EndpointSlices("shop").Create(w.t.Context(), slice, metav1.CreateOptions{})
	check(w.t, err)
}

// answer serves until the listener is closed.
func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("x")) // the client counts a failure
		_ = c.Close()
	}
}

// end deletes a pod after its last use.
func (w *rollout) end(p *webPod) {
	t := w.t
	t.Helper()
	w.mu.Lock()
	w.ready = w.ready[1:]
	w.mu.Unlock()
	time.Sleep(200 * time.Millisecond) // requests in flight
	check(t, p.listener.Close())
	check(t, w.client.CoreV1().Pods("shop").Delete(t.Context(), key(p.name).Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	check(t, w.bed.RemovePod(key(p.name)))
}

// call makes requests from the other node, each to the newest or the next pod.
func (w *rollout) call(ctx context.Context, n int) {
	for ctx.Err() == nil {
		w.mu.Lock()
		at := w.ready[len(w.ready)-1]
		if n > 0 {
			at = w.ready[n%len(w.ready)]
		}
		w.mu.Unlock()
		begun := time.Now()
		err := w.request(at)
		switch {
		case err != nil:
			w.failed.Add(1)
			w.t.Logf("%s: %v after %s", at, err, time.Since(begun))
		case time.Since(begun) > time.Second:
			w.slow.Add(1)
		}
		w.asked.Add(1)
		n++
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *rollout) request(at netip.AddrPort) error {
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	c, err := w.ns(far).Dial(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n == 0 {
		return errors.Join(errors.New("no answer"), err)
	}
	return nil
}

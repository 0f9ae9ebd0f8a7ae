// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/control/listwatch"
	"github.com/podwall/podwall/internal/lab/testkit/launch"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/observe"
)

// listWorld is a world whose agent reads an API server in this process: a real one needs more than two
// processors for a thousand giants, and then it would be measured, not the agent.
type listWorld struct {
	*world
	server     *listwatch.Server
	kubeconfig string
}

func newListWorld(t *testing.T) *listWorld {
	t.Helper()
	w := &listWorld{world: newWorld(t, lab.Routed), server: listwatch.New()}
	w.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	at := netip.MustParseAddrPort("172.30.0.1:6443")
	host, err := w.bed.AddHost("api", []netip.Addr{at.Addr(), netip.MustParseAddr("fd00:172:30::1")})
	check(t, err)
	l, err := host.NS.Listen(t.Context(), "tcp", at.String())
	check(t, err)
	serving, err := w.server.Serve(l)
	check(t, err)
	t.Cleanup(func() { check(t, serving.Close()) })
	check(t, os.WriteFile(w.kubeconfig, []byte(serving.Kubeconfig), 0o600))
	for text := range strings.SplitSeq(strings.Join(append([]string{w.base}, usual()...), "---\n"), "---\n") {
		if strings.TrimSpace(text) != "" {
			w.put(text)
		}
	}
	return w
}

// put stores an object.
func (w *listWorld) put(text string) {
	w.t.Helper()
	var kind metav1.TypeMeta
	check(w.t, yaml.Unmarshal([]byte(text), &kind))
	o := map[string]listwatch.Object{"Node": &corev1.Node{}, "Namespace": &corev1.Namespace{}, "Pod": &corev1.Pod{},
		"NetworkPolicy": &networkingv1.NetworkPolicy{}}[kind.Kind]
	check(w.t, yaml.UnmarshalStrict([]byte(text), o))
	_, err := w.server.Put(o)
	check(w.t, err)
}

// connect starts the agent. A thousand giants take it a while on a busy machine.
func (w *listWorld) connect(more ...string) *agent {
	w.t.Helper()
	args := append([]string{"--gate-socket=", "--kubeconfig=" + w.kubeconfig, "--iptables-sync-period=1s"}, more...)
	cmd := command(agentProgram(), args...)
	return (&agent{launch.Start(w.t, w.node(), "agent", patience, cmd), w.t}).ready()
}

// toggle writes or deletes the policy that closes the peer.
func (w *listWorld) toggle(on bool) {
	w.t.Helper()
	if on {
		w.put(policy("peer", "peer", `policyTypes: [Ingress], ingress: []`))
		return
	}
	_, err := w.server.Delete(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "peer"}})
	check(w.t, err)
}

// A tenant has a thousand of the largest policies of every shape. Another tenant's changes are in force
// while they are created, while they are edited ten times a second, when the agent starts among them, and
// while they are deleted; the agent stays small and stops when told to.
func TestAThousandGiantsDelayNobodyElse(t *testing.T) {
	w := newListWorld(t)
	a := w.connect()
	n, edits := soak.Times(14, 1_000), soak.Times(20, 600)
	write := func(i, edit int) error {
		_, err := w.server.Put(anyGiant(i, edit))
		return err
	}
	remove := func(i int) error {
		_, err := w.server.Delete(anyGiant(i, i))
		return err
	}
	check(t, write(0, 0)) // from now on the stranger is isolated, until the last one is deleted
	a.until("of the first giant", func(s observe.Status) bool { return s.IsolatedPods == 3 })
	w.measure(t, a, "created", n-1, 50*time.Millisecond, func(i int) error { return write(i+1, i+1) })
	edit := func(i int) error { return write(i%n, i+1) }
	w.measure(t, a, "edited", edits, 100*time.Millisecond, edit)
	stopped := time.Now()
	a.Signal(syscall.SIGTERM)
	a.Exits(0)
	t.Logf("SIGTERM obeyed after %v", time.Since(stopped).Round(time.Millisecond))
	began := time.Now()
	a = w.connect()
	t.Logf("ready among them after %v", time.Since(began).Round(time.Millisecond))
	w.measure(t, a, "edited after a restart", edits, 100*time.Millisecond, edit)
	w.measure(t, a, "deleted", n-1, 50*time.Millisecond, func(i int) error { return remove(i + 1) })
	check(t, remove(0))
	a.until("that the giants are gone", func(s observe.Status) bool { return s.IsolatedPods == 2 })
}

// measure does something n times, once in a pause, and meanwhile changes the other tenant's policies, one
// after the other, and waits for each to be in force. The stranger is isolated throughout.
func (w *listWorld) measure(t *testing.T, a *agent, what string, n int, pause time.Duration, do func(int) error) {
	t.Helper()
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- every(pause, n, do) }()
	var took []time.Duration
	var lasted time.Duration
	for on := true; lasted == 0 || !on; on = !on {
		select {
		case err := <-done:
			check(t, err)
			lasted = time.Since(began)
		default:
		}
		want := 3
		if on {
			want++
		}
		start := time.Now()
		w.toggle(on)
		a.until("of the other tenant's policy", func(s observe.Status) bool { return s.IsolatedPods == want })
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	at := func(percent int) time.Duration { return took[(len(took)-1)*percent/100].Round(time.Millisecond) }
	kib := highWater(t, a)
	t.Logf("%d giants %s in %v: %d changes of another tenant, in force after %v in the middle, %v in 99 of 100, "+
		"%v at most; agent at most %d MiB", n, what, lasted.Round(time.Second), len(took), at(50), at(99), at(100), kib>>10)
	if kib > 200<<10 {
		t.Errorf("the agent took %d MiB, more than 200", kib>>10)
	}
}

// every calls n times, with a pause between the beginnings of two calls, by several writers: on a busy
// machine a giant takes longer to write than the pause.
func every(pause time.Duration, n int, do func(int) error) error {
	const writers = 4
	turns, errs := make(chan int), make([]error, writers)
	var running sync.WaitGroup
	for i := range writers {
		running.Go(func() {
			for turn := range turns {
				errs[i] = errors.Join(errs[i], do(turn))
			}
		})
	}
	next := time.NewTicker(pause)
	defer next.Stop()
	for i := range n {
		turns <- i
		<-next.C
	}
	close(turns)
	running.Wait()
	return errors.Join(errs...)
}

// anyGiant returns giant number i, of each shape in turn, after an edit.
func anyGiant(i, edit int) *networkingv1.NetworkPolicy {
	shapes := giants()
	name := slices.Sorted(maps.Keys(shapes))[i%len(shapes)]
	np := shapes[name](edit % 250)
	np.Name = fmt.Sprintf("giant-%d", i)
	return np
}

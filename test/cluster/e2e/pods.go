// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/test/cluster"
)

// dialer is a pod whose first container connects and ends. A patience below a
// second is that of one packet: TCP repeats it after that.
func dialer(namespace, name, app, node string, to netip.AddrPort, patience time.Duration) *corev1.Pod {
	spec := cluster.PodSpec(namespace, name, node, "pause")
	spec.Labels["app"] = app
	spec.Spec.RestartPolicy = corev1.RestartPolicyNever
	spec.Spec.InitContainers = []corev1.Container{{Name: "first", Image: cluster.Agnhost,
		Command:                  []string{"/agnhost", "connect", to.String(), "--timeout=" + patience.String()},
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError}}
	return spec
}

// dials runs a dialer and reports whether it was let through.
func (t *trial) dials(ctx context.Context, spec *corev1.Pod) (through bool, err error) {
	pods := t.Client().CoreV1().Pods(spec.Namespace)
	if _, err := pods.Create(ctx, spec, metav1.CreateOptions{}); err != nil {
		return false, err
	}
	err = cluster.Await(ctx, "the first container of "+spec.Name, patience, func(ctx context.Context) error {
		p, err := pods.Get(ctx, spec.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, s := range p.Status.InitContainerStatuses {
			if end := s.State.Terminated; end != nil {
				through = end.ExitCode == 0
				return unexpected(end)
			}
		}
		return fmt.Errorf("it is %s", p.Status.Phase)
	})
	now := int64(0)
	return through, errors.Join(err, pods.Delete(ctx, spec.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
}

// unexpected says what a dialer met that is neither an answer nor silence.
func unexpected(end *corev1.ContainerStateTerminated) error {
	if end.ExitCode == 0 || strings.Contains(end.Message, "TIMEOUT") {
		return nil
	}
	return fmt.Errorf("it ended with %d: %s", end.ExitCode, end.Message)
}

const onePacket = 900 * time.Millisecond

// initContainers lets pods connect by their first container, as early as a pod
// can: a jailed pod must reach nothing. With the gate an allowed one must lose
// nothing.
func initContainers(ctx context.Context, t *trial) error {
	const rounds = 20
	c, err := newCast(ctx, t, "init", places{1, 1, 1, 1})
	if err != nil {
		return err
	}
	return errors.Join(t.dialRounds(ctx, c, rounds), c.remove(ctx))
}

// dialRounds starts pods that connect by their first container to a pod of their
// node, of either kind in turns.
func (t *trial) dialRounds(ctx context.Context, c *cast, rounds int) (err error) {
	to := netip.AddrPortFrom(c.web.IPs[0], webPort)
	reached := map[string]int{}
	for i := range rounds {
		for _, app := range []string{"friend", "jailed"} {
			through, dialed := t.dials(ctx, dialer(c.namespace, fmt.Sprintf("%s-%d", app, i), app, c.web.Node.Name,
				to, onePacket))
			err = errors.Join(err, dialed)
			if through {
				reached[app]++
			}
		}
	}
	t.figure("allowed init containers whose first packet was answered", float64(reached["friend"]),
		fmt.Sprint("of ", rounds))
	t.figure("isolated ones that reached something", float64(reached["jailed"]), fmt.Sprint("of ", rounds))
	if reached["jailed"] > 0 {
		err = errors.Join(err, fmt.Errorf("%d init containers of isolated pods reached something", reached["jailed"]))
	}
	if t.plan.gate && reached["friend"] < rounds {
		err = errors.Join(err,
			fmt.Errorf("%d of %d allowed init containers lost their first packet, in spite of the gate",
				rounds-reached["friend"], rounds))
	}
	return err
}

// shortPods lets many short pods share few addresses: an address that was a
// friend's is a stranger's a moment later, and the other way round.
func shortPods(ctx context.Context, t *trial) error {
	const pods, atOnce = 80, 6
	c, err := newCast(ctx, t, "short", places{1, 1, 1, 1})
	if err != nil {
		return err
	}
	to := netip.AddrPortFrom(c.web.IPs[0], webPort)
	var mu sync.Mutex // guards what follows
	reached := map[string]int{}
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range pods {
		app := []string{"friend", "stranger"}[i%2]
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			through, dialed := t.dials(ctx, dialer("short", fmt.Sprintf("%s-%d", app, i), app, c.web.Node.Name, to,
				onePacket))
			mu.Lock()
			defer mu.Unlock()
			err = errors.Join(err, dialed)
			if through {
				reached[app]++
			}
		})
	}
	group.Wait()
	t.figure("short pods that may connect and did at once", float64(reached["friend"]), fmt.Sprint("of ", pods/2))
	t.figure("short pods that may not and did", float64(reached["stranger"]), fmt.Sprint("of ", pods/2))
	if reached["stranger"] > 0 {
		err = errors.Join(err, fmt.Errorf("%d pods connected that no rule allows", reached["stranger"]))
	}
	if t.plan.gate && reached["friend"] < pods/2 {
		err = errors.Join(err, fmt.Errorf("%d pods lost their first packet, in spite of the gate",
			pods/2-reached["friend"]))
	}
	return errors.Join(err, c.remove(ctx))
}

// plainRuntime makes the class of pods that start without the gate.
func (w *world) plainRuntime(ctx context.Context) error {
	class := &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: cluster.PlainRuntime},
		Handler: cluster.PlainRuntime}
	_, err := w.Client().NodeV1().RuntimeClasses().Create(ctx, class, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		err = nil
	}
	return err
}

// startTimes measures what the gate adds to the start of a pod: from its creation
// until the API says that it is ready, with and without the gate in turns.
func startTimes(ctx context.Context, t *trial) error {
	const rounds = 40
	err := errors.Join(t.plainRuntime(ctx), t.Namespace(ctx, "start"))
	if err != nil {
		return err
	}
	took := map[bool][]float64{}
	for i := range rounds {
		for _, gated := range []bool{true, false} {
			seconds, err := t.startOne(ctx, fmt.Sprintf("pod-%d-%t", i, gated), gated)
			if err != nil {
				return err
			}
			took[gated] = append(took[gated], seconds)
		}
	}
	for gated, name := range map[bool]string{true: "with the gate", false: "without"} {
		slices.Sort(took[gated])
		t.figure("p50 "+name, took[gated][rounds/2]*1000, "ms")
		t.figure("p99 "+name, took[gated][rounds*99/100]*1000, "ms")
	}
	return t.Client().CoreV1().Namespaces().Delete(ctx, "start", metav1.DeleteOptions{})
}

func (t *trial) startOne(ctx context.Context, name string, gated bool) (float64, error) {
	spec := cluster.PodSpec("start", name, t.node(1).Name, "pause")
	if !gated {
		class := cluster.PlainRuntime
		spec.Spec.RuntimeClassName = &class
	}
	began := time.Now()
	seen, err := t.RunWatched(ctx, spec)
	if err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds()
	return took, t.Remove(ctx, seen)
}

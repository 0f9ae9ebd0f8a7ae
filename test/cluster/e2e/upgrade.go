// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var errProcess = errors.New("it needs podwall's image")

// upgrades brings an older release, and from it the one of this image: forwards,
// back and forwards again, with both flows across both nodes. What helm does to
// the API at an upgrade is to apply another rendering of the chart.
func upgrades(ctx context.Context, t *trial) error {
	if t.settings.process {
		return errProcess
	}
	old, err := t.withOlder(ctx)
	if err != nil {
		return err
	}
	before, err := t.manifestOf(ctx, old.root, "image: {tag: older}")
	now, err2 := t.manifest(ctx)
	changed, err3 := t.manifestOf(ctx, t.settings.root, "agent: {logLevel: 1}")
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	c, err := newCast(ctx, t, "upgrade", places{friend: 1, web: 2, stranger: 2, shut: 1})
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
		old  bool
	}{
		{"an older release instead", func() error { return t.apply(ctx, before) }, true},
		{"upgrade", func() error { return t.apply(ctx, now) }, false},
		{"rollback", func() error { return t.rollout(ctx, "undo") }, true},
		{"upgrade with a changed value", func() error { return t.apply(ctx, changed) }, false},
		{"the usual values", func() error { return t.apply(ctx, now) }, false},
	} {
		if err == nil {
			err = c.during(ctx, step.name, func() error {
				return t.replaced(ctx, step.name, "agent", step.old,
					step.do)
			})
		}
	}
	if err != nil {
		err = errors.Join(err, t.apply(context.WithoutCancel(ctx), now)) // for what is tried next
	}
	return errors.Join(err, c.remove(ctx))
}

func (t *trial) rollout(ctx context.Context, what string) error {
	_, err := t.Kubectl(ctx, "", "rollout", what, "-n", system, "daemonset/"+daemonSet)
	return err
}

// replaced does something, and waits until all pods run and a container of theirs
// is of the wanted release.
func (t *trial) replaced(ctx context.Context, name, container string, old bool, do func() error) error {
	began := time.Now()
	if err := errors.Join(do(), t.awaitAgents(ctx)); err != nil {
		return err
	}
	t.figure(name+": took", time.Since(began).Seconds(), "s")
	pods, err := t.Client().CoreV1().Pods(system).List(ctx,
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + daemonSet})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		for _, c := range p.Spec.Containers {
			if isOld := strings.HasSuffix(c.Image, olderImage); c.Name == container && p.DeletionTimestamp == nil &&
				isOld != old {
				err = errors.Join(err, fmt.Errorf("%s: %s has %s of %s", name, p.Name, c.Name, c.Image))
			}
			err = errors.Join(err, endedOnce(p, c.Name))
		}
	}
	return err
}

// endedOnce says that a container ended, which an update does not make it do.
func endedOnce(p corev1.Pod, container string) error {
	for _, s := range p.Status.ContainerStatuses {
		if end := s.LastTerminationState.Terminated; s.Name == container && end != nil {
			return fmt.Errorf("%s of %s ended with %d: %s", container, p.Name, end.ExitCode, end.Message)
		}
	}
	return nil
}

// olderGate lets pods start by an older release's gate beside this one's agent,
// as on a node whose gate could not be replaced.
func olderGate(ctx context.Context, t *trial) error {
	if t.settings.process {
		return errProcess
	}
	old, err := t.withOlder(ctx)
	if err != nil {
		return err
	}
	c, err := newCast(ctx, t, "skew", places{friend: 1, web: 2, stranger: 2, shut: 1})
	if err != nil {
		return err
	}
	err = c.during(ctx, "", func() error {
		set := func() error {
			_, err := t.Kubectl(ctx, "", "set", "image", "-n", system, "daemonset/"+daemonSet, "gate="+olderImage)
			return err
		}
		if err := t.replaced(ctx, "older gate", "gate", true, set); err != nil {
			return err
		}
		err := t.gateIs(old.gate, true)
		if err == nil {
			err = t.dialRounds(ctx, c, 10)
		}
		return errors.Join(err, t.replaced(ctx, "back", "gate", false,
			func() error { return t.rollout(ctx, "undo") }), t.gateIs(old.gate, false))
	})
	return errors.Join(err, c.remove(ctx))
}

// gateIs wants the gate's program on all nodes to be a file, or not to be it.
func (t *trial) gateIs(file string, want bool) error {
	program, err := os.ReadFile(file)
	for _, n := range t.Nodes() {
		has, one := os.ReadFile(n.File("/opt/cni/bin/podwall-gate"))
		if one == nil && bytes.Equal(has, program) != want {
			one = fmt.Errorf("the gate's program on %s is the older one: %t, want %t", n.Name, !want, want)
		}
		err = errors.Join(err, one)
	}
	return err
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/test/cluster"
)

const uninstaller = "daemonset/podwall-uninstall"

// uninstall does what docs/uninstall.md says. Nothing opens until its second
// step; after it everything passes, and nothing of podwall is left.
func uninstall(ctx context.Context, t *trial) error {
	if t.settings.process {
		return errProcess
	}
	c, err := newCast(ctx, t, "uninstall", places{friend: 1, web: 2, stranger: 1, shut: 1})
	if err != nil {
		return err
	}
	if t.nothingLeft() == nil {
		return errors.Join(errors.New("podwall runs and leaves no trace that this scenario would find"), c.remove(ctx))
	}
	file := filepath.Join(t.settings.root, "deploy", "uninstall.yaml")
	err = c.during(ctx, "agents stopped", func() error { return t.stopAgents(ctx) })
	if err == nil {
		err = t.cleanUp(ctx, c, file)
	}
	err = errors.Join(err, c.remove(ctx), t.gone(ctx, c.namespace))
	if err == nil && t.plan.gate { // the gate's program goes after the last pod that was started with it
		_, err1 := t.Kubectl(ctx, "", "rollout", "restart", "-n", system, uninstaller)
		err = errors.Join(err1, t.cleaned(ctx))
	}
	if err == nil {
		err = t.nothingLeft()
	}
	_, err1 := t.Kubectl(ctx, "", "delete", "-f", file)
	_, err2 := t.Kubectl(ctx, "", "delete", "--ignore-not-found", "-f", filepath.Join(t.settings.root,
		"deploy", "podwall.yaml"))
	return errors.Join(err, err1, err2)
}

func (t *trial) stopAgents(ctx context.Context) error {
	if _, err := t.Kubectl(ctx, "", "delete", "-n", system, "daemonset", daemonSet, "--wait"); err != nil {
		return err
	}
	err := cluster.Await(ctx, "the end of the agents", patience, func(context.Context) error {
		for _, n := range t.Nodes() {
			if _, err := agentOf(n); err == nil {
				return fmt.Errorf("%s still has an agent", n.Name)
			}
		}
		return nil
	})
	time.Sleep(3 * time.Second) // under the flows, without agents
	return err
}

// cleanUp runs the second step. The flow that must always pass still must; the
// other one must pass at the end of it.
func (t *trial) cleanUp(ctx context.Context, c *cast, file string) error {
	fs, err := c.start(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	_, err = t.Kubectl(ctx, "", "apply", "-f", file)
	err = errors.Join(err, t.cleaned(ctx))
	t.figure("nodes were clean after", time.Since(began).Seconds(), "s")
	open, opened := datagrams(fs.never.to)
	time.Sleep(time.Second)
	later, err2 := datagrams(fs.never.to)
	_, _, err3 := fs.never.end()
	sent, passed, err4 := fs.always.end()
	t.figure("sent meanwhile that must always pass", float64(sent), "")
	t.figure("lost of them", float64(sent)-float64(passed), "")
	t.figure("passed then in a second of what had been denied", float64(later-open), "")
	err = errors.Join(err, opened, err2, err3, err4)
	if passed != sent {
		err = errors.Join(err, fmt.Errorf("%d of %d datagrams were lost while nodes were cleaned", sent-passed, sent))
	}
	if later-open < flowRate/2 {
		err = errors.Join(err, fmt.Errorf("%d datagrams a second pass after uninstalling, of %d", later-open, flowRate))
	}
	return errors.Join(err, t.newPodsAreOpen(ctx, c))
}

func (t *trial) cleaned(ctx context.Context) error {
	_, err := t.Kubectl(ctx, "", "rollout", "status", "-n", system, uninstaller, "--timeout=5m")
	return err
}

// newPodsAreOpen starts a pod on each node that a policy isolates.
func (t *trial) newPodsAreOpen(ctx context.Context, c *cast) error {
	for i, n := range t.Nodes() {
		name := fmt.Sprint("new-", i)
		spec := cluster.PodSpec(c.namespace, name, n.Name, "netexec", fmt.Sprint("--http-port=", webPort))
		spec.Labels["app"] = "jailed"
		if _, err := t.Run(ctx, spec); err != nil {
			return err
		}
		if err := t.reaches(ctx, c.namespace, name, c.web); err != nil {
			return err
		}
	}
	return nil
}

// gone waits for the end of a namespace.
func (t *trial) gone(ctx context.Context, namespace string) error {
	return cluster.Await(ctx, "the end of namespace "+namespace, patience, func(ctx context.Context) error {
		_, err := t.Client().CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is still there"))
	})
}

// nothingLeft compares the nodes with what they were before podwall came.
func (t *trial) nothingLeft() (err error) {
	for _, n := range t.Nodes() {
		after, look := footprint(n)
		err = errors.Join(err, look)
		for _, line := range differences(t.before[n.Name], after) {
			err = errors.Join(err, fmt.Errorf("%s: %s", n.Name, line))
		}
	}
	return err
}

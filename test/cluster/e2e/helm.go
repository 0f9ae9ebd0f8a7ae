// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/podwall/podwall/test/cluster"
)

// byHelm installs podwall with the program helm, in the place of what kubectl
// applied if that is there, upgrades it, rolls back, and uninstalls it while a node
// is dead: first in vain, then after the node has come back.
func byHelm(ctx context.Context, t *trial) error {
	if t.settings.process {
		return errProcess
	}
	c, err := t.helmInstall(ctx)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		args []string
	}{
		{"upgrade", t.release("upgrade", "agent.logLevel=1")},
		{"rollback", []string{"rollback", "podwall", "-n", system}},
	} {
		if err == nil {
			err = c.during(ctx, step.name, func() error {
				return t.replaced(ctx, step.name, "agent", false, func() error {
					_, err := t.Helm(ctx, step.args...)
					return err
				})
			})
		}
	}
	if err == nil {
		err = t.uninstallInVain(ctx, c)
	}
	err = errors.Join(err, c.remove(ctx))
	if err != nil {
		return err
	}
	return t.uninstallAgain(ctx, c)
}

// release is a command of helm that sets the values of this scenario, and further ones.
func (t *trial) release(command string, values ...string) []string {
	values = append(values, "uninstall.enabled=true", "uninstall.timeout=90s", fmt.Sprint("gate.enabled=", t.plan.gate))
	return []string{command, "podwall", filepath.Join(t.settings.root, "deploy", "chart", "podwall"), "-n", system,
		"--set", strings.Join(values, ",")}
}

// helmInstall returns when all agents are of helm, with the ends of the flows. One pod is on each node: on
// a node that never had one, the gate's program stays, since nothing says that no sandbox needs it.
func (t *trial) helmInstall(ctx context.Context) (*cast, error) {
	namespace := fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: "+
		"{pod-security.kubernetes.io/enforce: privileged}}\n", system)
	if err := t.apply(ctx, namespace); err != nil {
		return nil, err
	}
	_, err := t.Helm(ctx, append(t.release("install"), "--take-ownership", "--server-side=false")...)
	if err := errors.Join(err, t.awaitAgents(ctx)); err != nil {
		return nil, err
	}
	return newCast(ctx, t, "helm", places{friend: 1, web: 2, stranger: 1, shut: 1})
}

// uninstallInVain wants helm to stop and to name the dead node, with the agents gone
// and the other node clean.
func (t *trial) uninstallInVain(ctx context.Context, c *cast) error {
	dead := t.node(2)
	err := errors.Join(dead.PowerOff(), cluster.Await(ctx, "the cluster to notice", patience,
		func(ctx context.Context) error {
			if dead.Ready(ctx) == nil {
				return fmt.Errorf("%s still counts as ready", dead.Name)
			}
			return nil
		}))
	if err != nil {
		return err
	}
	began := time.Now()
	out, err := t.Helm(ctx, "uninstall", "podwall", "-n", system, "--timeout", "5m")
	t.figure("helm uninstall with a dead node ended after", time.Since(began).Seconds(), "s")
	if err == nil {
		return fmt.Errorf("helm uninstalled podwall although %s is dead: %s", dead.Name, out)
	}
	_, last, _ := strings.Cut(out, "not every node is done") // before that it says what it waits for
	for _, want := range []string{dead.Name + ": the node is dead", "run helm uninstall again"} {
		if !strings.Contains(last, want) {
			return fmt.Errorf("helm uninstall does not say %q: %s", want, out)
		}
	}
	if strings.Contains(last, t.node(1).Name+":") {
		return fmt.Errorf("helm uninstall names a node that is clean: %s", out)
	}
	if err := t.podwallIsGone(ctx, daemonSet); err != nil {
		return err
	}
	status, err := t.Helm(ctx, "status", "podwall", "-n", system) // the release is still there
	if err != nil || !strings.Contains(status, "STATUS: ") {
		return fmt.Errorf("the release after that: %w: %s", err, status)
	}
	return t.reaches(ctx, c.namespace, "stranger", c.shut)
}

// uninstallAgain brings the node back and uninstalls.
func (t *trial) uninstallAgain(ctx context.Context, c *cast) error {
	n := t.node(2)
	err := errors.Join(n.Reboot(ctx), t.gone(ctx, c.namespace))
	if err == nil {
		err = cluster.Await(ctx, n.Name, patience, n.Ready)
	}
	if err != nil {
		return err
	}
	began := time.Now()
	_, err = t.Helm(ctx, "uninstall", "podwall", "-n", system, "--timeout", "5m")
	t.figure("helm uninstall with both nodes took", time.Since(began).Seconds(), "s")
	if err == nil {
		err = errors.Join(t.nothingLeft(), t.podwallIsGone(ctx, ""))
	}
	return err
}

// podwallIsGone looks for a DaemonSet of a name, or for any object of podwall.
func (t *trial) podwallIsGone(ctx context.Context, name string) error {
	args := []string{"get", "daemonsets,jobs,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings", "-A",
		"-o", "name"}
	out, err := t.Kubectl(ctx, "", args...)
	for _, o := range strings.Fields(out) {
		if strings.Contains(o, "podwall") && (name == "" || o == "daemonset.apps/"+name) {
			err = errors.Join(err, fmt.Errorf("%s is left", o))
		}
	}
	return err
}

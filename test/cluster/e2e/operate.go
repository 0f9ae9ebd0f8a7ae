// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/podwall/podwall/test/cluster"
)

// updateDaemonSet replaces every agent while both flows run. The way that is
// always open crosses both nodes.
func updateDaemonSet(ctx context.Context, t *trial) error {
	return under(ctx, t, "update", places{friend: 1, web: 2, stranger: 1, shut: 1}, func(*cast) error {
		if t.settings.process {
			return nil
		}
		if err := t.rollout(ctx, "restart"); err != nil {
			return err
		}
		began := time.Now()
		err := t.awaitAgents(ctx)
		t.figure("until all agents were replaced", time.Since(began).Seconds(), "s")
		return err
	})
}

// drain empties the second node, while both flows run on the first one.
func drain(ctx context.Context, t *trial) error {
	return under(ctx, t, "drain", places{1, 1, 1, 1}, func(*cast) error {
		node := t.node(2).Name
		if err := t.apply(ctx, webManifest("drain", "movable", "")); err != nil {
			return err
		}
		ready := func() error {
			_, err := t.Kubectl(ctx, "", "rollout", "status", "-n", "drain", "deployment/movable", "--timeout=2m")
			return err
		}
		if err := ready(); err != nil {
			return err
		}
		_, err := t.Kubectl(ctx, "", "drain", node, "--ignore-daemonsets", "--delete-emptydir-data",
			"--force", "--timeout=2m")
		if err == nil {
			err = ready()
		}
		_, back := t.Kubectl(ctx, "", "uncordon", node)
		return errors.Join(err, back)
	})
}

// reboot lets a node lose its power. Its pods come back before an agent can run,
// because the node has lost the agent's image too.
func reboot(ctx context.Context, t *trial) error {
	if t.settings.process {
		return errProcess
	}
	return under(ctx, t, "reboot", places{1, 1, 1, 1}, func(c *cast) error {
		n := t.node(2)
		var pods []*cluster.Pod
		for _, name := range []string{"shut-there", "web-there"} {
			spec := cluster.PodSpec(c.namespace, name, n.Name, "netexec", fmt.Sprint("--http-port=", webPort),
				fmt.Sprint("--udp-port=", flowPort))
			spec.Labels["app"], _, _ = strings.Cut(name, "-")
			p, err := t.Run(ctx, spec)
			if err != nil {
				return err
			}
			pods = append(pods, p)
		}
		if err := forgetPodwall(ctx, n); err != nil {
			return err
		}
		sweeping, stop := context.WithCancel(ctx)
		defer stop()
		swept := make(chan error, 1)
		go func() { swept <- sweep(sweeping, c.stranger, pods[0].IPs[0]) }()
		if err := n.Reboot(ctx); err != nil {
			return err
		}
		err := t.afterReboot(ctx, n, pods)
		stop()
		return errors.Join(err, <-swept)
	})
}

// afterReboot waits for the pods, then brings the agent back. Nothing may come
// into the first pod, which lets nobody in, as soon as its program can hear it.
// What the network plugins let in while they wire it is only counted: the gate is
// the last of them.
func (t *trial) afterReboot(ctx context.Context, n *cluster.Node, old []*cluster.Pod) error {
	began := time.Now()
	shut, err := t.restarted(ctx, old[0])
	if err != nil {
		return err
	}
	t.figure("pods ran again after", time.Since(began).Seconds(), "s")
	ns, err := shut.Netns(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }() // only looked at
	before, err := received(ns)
	if err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // under the flow, without an agent
	if _, err := agentOf(n); err == nil {
		return errors.New("the agent ran before the pods")
	}
	if err := errors.Join(n.Import(ctx, t.settings.image()), t.awaitAgents(ctx)); err != nil {
		return err
	}
	t.figure("agent was ready again after", time.Since(began).Seconds(), "s")
	web, err := t.restarted(ctx, old[1])
	if err != nil {
		return err
	}
	after, err := received(ns)
	t.figure("datagrams into the isolated pod while it was wired", float64(before.unheard), "")
	t.figure("and later", float64(after.heard+after.unheard-before.unheard), "")
	if after.heard > 0 || after.unheard > before.unheard {
		err = errors.Join(err,
			fmt.Errorf("datagrams came into a pod that lets nobody in: %+v when it ran, %+v at the end", before, after))
	}
	return errors.Join(err, t.reaches(ctx, "reboot", "friend", web))
}

// restarted waits until a pod's containers have been started again.
func (t *trial) restarted(ctx context.Context, old *cluster.Pod) (p *cluster.Pod, err error) {
	err = cluster.Await(ctx, "a restart of "+old.Name, 3*time.Minute, func(ctx context.Context) error {
		p, err = t.AwaitPod(ctx, old.Namespace, old.Name)
		if err == nil && p.Restarts() == old.Restarts() {
			return errors.New("it has not been started again")
		}
		return err
	})
	return p, err
}

// reaches wants a TCP connection between pods.
func (t *trial) reaches(ctx context.Context, namespace, from string, to *cluster.Pod) error {
	p, err := t.AwaitPod(ctx, namespace, from)
	if err != nil {
		return err
	}
	ok, err := t.Connects(ctx, p, netip.AddrPortFrom(to.IPs[0], webPort), 10*time.Second)
	if err == nil && !ok {
		err = fmt.Errorf("%s does not reach %s", from, to.Name)
	}
	return err
}

// forgetPodwall takes podwall's image from a node.
func forgetPodwall(ctx context.Context, n *cluster.Node) error {
	names, err := n.Images(ctx)
	for _, name := range names {
		if strings.Contains(name, "podwall/podwall:") {
			err = errors.Join(err, n.Forget(ctx, name))
		}
	}
	return err
}

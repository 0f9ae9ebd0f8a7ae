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

	"github.com/podwall/podwall/internal/lab/process"
	"github.com/podwall/podwall/test/cluster"
)

// servicesRollout replaces all pods behind a Service, twice, under clients.
func servicesRollout(ctx context.Context, t *trial) error {
	return underCalls(ctx, t, "services-rollout", func(s *shop) error {
		for range 2 {
			if err := errors.Join(s.rollout(ctx, "restart"), s.rollout(ctx, "status", "--timeout=4m")); err != nil {
				return err
			}
		}
		return s.readPods(ctx)
	})
}

// servicesRestart replaces all agents under clients.
func servicesRestart(ctx context.Context, t *trial) error {
	if t.settings.process {
		return errProcess
	}
	return underCalls(ctx, t, "services-restart", func(s *shop) error {
		return errors.Join(s.readPods(ctx), t.rollout(ctx, "restart"), t.awaitAgents(ctx))
	})
}

// toKubeProxyAndBack goes the way back of docs/services.md, and then takes over
// from kube-proxy.
func toKubeProxyAndBack(ctx context.Context, t *trial) error {
	if t.settings.process {
		return errProcess
	}
	with, err := t.manifestOf(ctx, t.settings.root, t.serving("takeover: true")...)
	without, err2 := t.manifestOf(ctx, t.settings.root)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	return underCalls(ctx, t, "services-back", func(s *shop) error {
		proxies, err := s.startProxies(ctx)
		if err != nil {
			return err
		}
		err = errors.Join(s.readPods(ctx), t.apply(ctx, without), t.awaitAgents(ctx), t.tables(ctx, "kube-proxy"))
		if err == nil {
			err = errors.Join(s.clusterAddresses(ctx), s.nodePorts(ctx))
		}
		for _, p := range proxies {
			p.Kill() // its rules stay, as when its DaemonSet is deleted
		}
		return errors.Join(err, t.apply(ctx, with), t.awaitAgents(ctx), t.tables(ctx, "podwall-services"))
	})
}

// startProxies starts kube-proxy on all nodes and waits until its rules lead to the Service.
func (s *shop) startProxies(ctx context.Context) (list []*process.Process, err error) {
	for _, n := range s.t.Nodes() {
		p, err := n.StartProxy(cluster.Nftables)
		if err != nil {
			return list, err
		}
		list = append(list, p)
	}
	front := s.fronts["web"].addrs[0].String()
	return list, cluster.Await(ctx, "kube-proxy's rules", patience, func(ctx context.Context) error {
		for _, n := range s.t.Nodes() {
			rules, err := n.Run(ctx, "/usr/sbin/nft", "list", "table", "ip", "kube-proxy")
			if err != nil {
				return err
			}
			if !strings.Contains(rules, front) {
				return fmt.Errorf("those of %s do not name %s", n.Name, front)
			}
		}
		return nil
	})
}

// tables waits until each node has the tables of one proxy only.
func (t *trial) tables(ctx context.Context, want string) error {
	return cluster.Await(ctx, "only the tables "+want, patience, func(ctx context.Context) error {
		for _, n := range t.Nodes() {
			text, err := n.Run(ctx, "/usr/sbin/nft", "list", "tables")
			if err != nil {
				return err
			}
			for _, name := range []string{"kube-proxy", "podwall-services"} {
				if strings.Contains(text, name) != (name == want) {
					return fmt.Errorf("%s has:\n%s", n.Name, text)
				}
			}
		}
		return nil
	})
}

// underCalls makes a shop and lets something happen to it while pods of both
// nodes, a node, and a client from outside call it. No call may fail. Afterwards all must
// meet all pods.
func underCalls(ctx context.Context, t *trial, namespace string, happens func(*shop) error) error {
	s, err := newShop(ctx, t, namespace)
	if err != nil {
		return err
	}
	calling := map[string]*callers{}
	for _, c := range s.clients {
		for _, a := range s.fronts["web"].addrs {
			calling[fmt.Sprintf("%s, IPv%d", c.name, version46(a))] = newCallers(ctx, c.ns, netip.AddrPortFrom(a, 80))
		}
	}
	calling["outside, node port"] = newCallers(ctx, s.outside.ns,
		netip.AddrPortFrom(t.node(2).Addrs[0], s.fronts["web"].nodePort))
	began := time.Now()
	err = happens(s)
	t.figure("took", time.Since(began).Seconds(), "s")
	var asked, slow, again int64
	for name, c := range calling {
		c.end()
		asked, slow, again = asked+c.asked.Load(), slow+c.slow.Load(), again+c.again.Load()
		if n := c.failed.Load(); n > 0 || c.asked.Load() == 0 {
			err = errors.Join(err, fmt.Errorf("%s: %d of %d requests failed", name, n, c.asked.Load()))
		}
	}
	t.figure("requests", float64(asked), "")
	t.figure("of them longer than a second", float64(slow), "")
	t.figure("whose first packet was sent again", float64(again), "")
	if err == nil {
		err = errors.Join(s.clusterAddresses(ctx), s.nodePorts(ctx))
	}
	return errors.Join(err, s.remove(ctx))
}

func version46(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

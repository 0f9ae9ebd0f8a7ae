// SPDX-License-Identifier: Apache-2.0

// Package gen makes random clusters, random changes of clusters and random
// flows for property tests. It owns the choice of a small world, in which
// names, labels and addresses meet often; it never judges anything.
//
// Policies are made as API objects and go through package convert, as those of
// users do, so that empty and absent lists, defaults and parts that cannot be
// understood are all met.
package gen

import (
	"fmt"
	"net/netip"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
)

// Nodes are the nodes that pods of this world are bound to.
func Nodes() []string { return []string{"one", "two"} }

// NodeAddr returns the node's own address of a family.
func NodeAddr(node string, v4 bool) netip.Addr {
	last := byte(1)
	if node == "two" {
		last = 2
	}
	if v4 {
		return netip.AddrFrom4([4]byte{192, 168, 0, last})
	}
	return netip.AddrFrom16([16]byte{0: 0xfd, 15: last})
}

func namespaceNames() []string { return []string{"a", "ab", "b"} }
func podNames() []string       { return []string{"p", "q", "r", "s", "t"} }
func portNames() []string      { return []string{"http", "dns"} }
func portNumbers() []int32     { return []int32{53, 79, 80, 81, 443, 8080} }

// pick chooses one of a list.
func pick[T any](t *rapid.T, label string, list ...T) T {
	return list[rapid.IntRange(0, len(list)-1).Draw(t, label)]
}

// rarely is true in about one case of n.
func rarely(t *rapid.T, label string, n int) bool {
	return rapid.IntRange(1, n).Draw(t, label) == n
}

// Labels returns up to three labels out of a small world; often none.
func Labels(t *rapid.T) map[string]string {
	m := map[string]string{}
	for _, key := range []string{"app", "tier", "team"} {
		if v := pick(t, "label "+key, "-", "x", "y", ""); v != "-" {
			m[key] = v
		}
	}
	return m
}

// Namespace returns a namespace, with the label that the API server adds.
func Namespace(t *rapid.T) *cluster.Namespace {
	name := pick(t, "namespace", namespaceNames()...)
	m := Labels(t)
	m["kubernetes.io/metadata.name"] = name
	return &cluster.Namespace{Name: name, Labels: cluster.NewLabels(m),
		Mode: pick(t, "namespace mode", "", "", "", "", cluster.ModeAudit, cluster.ModeEnforce, `"Audit"`)}
}

// Pod returns a pod: mostly a usual one, sometimes unscheduled, without
// address, finished, terminating or on the host's network. Addresses come from
// a small world, so that pods sometimes share one.
func Pod(t *rapid.T) *cluster.Pod {
	p := &cluster.Pod{
		Key: cluster.Key{Namespace: pick(t, "pod namespace", namespaceNames()...),
			Name: pick(t, "pod", podNames()...)},
		UID:         pick(t, "uid", "1", "2"),
		Labels:      cluster.NewLabels(Labels(t)),
		Node:        pick(t, "node", "one", "one", "one", "two", "two", ""),
		HostNetwork: rarely(t, "host network", 12),
		Finished:    rarely(t, "finished", 12),
		Terminating: rarely(t, "terminating", 8),
	}
	if p.HostNetwork && p.Node != "" {
		p.IPs = []netip.Addr{NodeAddr(p.Node, true)}
		return p
	}
	n := byte(rapid.IntRange(1, 12).Draw(t, "address"))
	v4, v6 := netip.AddrFrom4([4]byte{10, 0, 0, n}), netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x10, 15: n})
	p.IPs = pick(t, "families", []netip.Addr{v4}, []netip.Addr{v4, v6}, []netip.Addr{v4, v6}, []netip.Addr{v6, v4},
		[]netip.Addr{v6}, nil)
	p.Declared = &cluster.Declared{Ports: ports(t)}
	return p
}

// ports returns named ports; names may repeat, for one protocol or for two.
func ports(t *rapid.T) []cluster.NamedPort {
	var list []cluster.NamedPort
	for range rapid.IntRange(0, 3).Draw(t, "named ports") {
		list = append(list, cluster.NamedPort{
			Name:     pick(t, "port name", portNames()...),
			Protocol: pick(t, "port protocol", cluster.TCP, cluster.UDP, cluster.SCTP),
			Port:     uint16(pick(t, "port number", portNumbers()...)),
		})
	}
	return list
}

// Change makes one to four random changes.
func Change(t *rapid.T) func(*cluster.Tx) {
	n := rapid.IntRange(1, 4).Draw(t, "changes")
	return func(tx *cluster.Tx) {
		for range n {
			change(t, tx)
		}
	}
}

func change(t *rapid.T, tx *cluster.Tx) {
	switch pick(t, "change", "namespace", "pod", "pod", "pod", "pod", "policy", "policy", "-namespace", "-pod",
		"-policy") {
	case "namespace":
		tx.SetNamespace(Namespace(t))
	case "pod":
		tx.SetPod(Pod(t))
	case "policy":
		tx.SetPolicy(Policy(t))
	case "-namespace":
		tx.DeleteNamespace(pick(t, "gone", namespaceNames()...))
	case "-pod":
		tx.DeletePod(cluster.Key{Namespace: pick(t, "gone in", namespaceNames()...),
			Name: pick(t, "gone", podNames()...)})
	case "-policy":
		tx.DeletePolicy(cluster.Key{Namespace: pick(t, "gone in", namespaceNames()...),
			Name: pick(t, "gone", policyNames()...)})
	}
}

// Fill puts a random cluster into an empty store, which then allows audit mode, also of namespaces: up to
// three namespaces, twelve pods and eight policies.
func Fill(t *rapid.T, s *cluster.Store) {
	s.Allow(cluster.Allowance{Audit: true, AuditNamespaces: true})
	s.Update(func(tx *cluster.Tx) {
		for range rapid.IntRange(1, 6).Draw(t, "namespaces") {
			tx.SetNamespace(Namespace(t))
		}
		for range rapid.IntRange(2, 12).Draw(t, "pods") {
			tx.SetPod(Pod(t))
		}
		for range rapid.IntRange(1, 8).Draw(t, "policies") {
			tx.SetPolicy(Policy(t))
		}
	})
}

// Snapshot returns a random cluster.
func Snapshot(t *rapid.T) *cluster.Snapshot {
	s := cluster.NewStore()
	Fill(t, s)
	return s.Snapshot()
}

// Describe returns a cluster as text, for the message of a failed test.
func Describe(s *cluster.Snapshot) string {
	text := ""
	for _, n := range s.Namespaces {
		text += fmt.Sprintf("namespace %s labels %s\n", n.Name, n.Labels)
	}
	for _, p := range s.Pods {
		text += fmt.Sprintf("pod %+v\n", *p)
	}
	for _, p := range s.Policies {
		text += fmt.Sprintf("policy %s subject %s ingress %t egress %t audit %t\n", p.Key, p.Subject, p.IsolatesIngress,
			p.IsolatesEgress, p.Audit)
		text += describeRules("ingress", p.Ingress) + describeRules("egress", p.Egress)
	}
	return text
}

func describeRules(direction string, rules []cluster.Rule) string {
	text := ""
	for _, r := range rules {
		text += fmt.Sprintf("  %s[%d] ports any %t %v, peers any %t\n", direction, r.Index, r.Ports.Any, r.Ports.List,
			r.Peers.Any)
		for _, p := range r.Peers.List {
			switch {
			case p.Block != nil:
				text += fmt.Sprintf("    block %s except %v\n", p.Block.CIDR, p.Block.Except)
			case p.Namespaces != nil:
				text += fmt.Sprintf("    pods %s in namespaces %s\n", p.Pods, p.Namespaces)
			default:
				text += fmt.Sprintf("    pods %s here\n", p.Pods)
			}
		}
	}
	return text
}

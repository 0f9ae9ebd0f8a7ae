// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"net/netip"

	"github.com/podwall/podwall/internal/cluster"
)

// muchWork is how much a delta has to hold beside pods of this node before those
// are committed first: below that, two commits take longer than one. A pod of
// another node, a peer and a port count as one each.
const muchWork = 500

// localFirst divides a delta. What comes first is little: the pods of this node,
// with everything that says what they may do at once (the policies of their
// namespaces, labels of namespaces, and other pods with their addresses). Pods of
// a namespace whose own policies are much work wait for these. The rest is the
// zero Delta if there is nothing to gain.
//
// A commit of the first part alone isolates every new pod by all policies that
// were there when it came. What is late by a commit is what others changed.
func localFirst(d cluster.Delta, node string) (first, rest cluster.Delta) {
	late := heavy(d.Policies)
	namespaces, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for _, c := range d.Pods {
		if isLocal(c, node) && !late[namespaceOf(c)] {
			namespaces[namespaceOf(c)] = true
			note(addrs, c)
		}
	}
	if len(namespaces) == 0 {
		return d, rest
	}
	first, rest = d, d
	first.Pods, first.Policies = nil, nil
	rest.Nodes, rest.Namespaces, rest.Pods, rest.Policies = nil, nil, nil, nil
	for _, c := range d.Pods {
		shares := sharesAddress(addrs, c)
		switch local := isLocal(c, node); {
		case local && late[namespaceOf(c)] && shares:
			return d, cluster.Delta{} // whose the address is must be decided at once
		case local && !late[namespaceOf(c)], shares:
			first.Pods = append(first.Pods, c)
		default:
			rest.Pods = append(rest.Pods, c)
		}
	}
	for _, c := range d.Policies {
		if namespaces[policyOf(c).Key.Namespace] {
			first.Policies = append(first.Policies, c)
		} else {
			rest.Policies = append(rest.Policies, c)
		}
	}
	if work(rest) < muchWork {
		return d, cluster.Delta{}
	}
	return first, rest
}

// heavy returns the namespaces whose changed policies are much work.
func heavy(list []cluster.Change[cluster.Policy]) map[string]bool {
	sum, found := map[string]int{}, map[string]bool{}
	for _, c := range list {
		namespace := policyOf(c).Key.Namespace
		sum[namespace] += size(c.New)
		found[namespace] = sum[namespace] >= muchWork
	}
	return found
}

func work(d cluster.Delta) int {
	sum := len(d.Pods)
	for _, c := range d.Policies {
		sum += size(c.New)
	}
	return sum
}

// size is how many peers and ports a policy has; one that is gone is one.
func size(p *cluster.Policy) int {
	n := 1
	if p == nil {
		return n
	}
	for _, rules := range [][]cluster.Rule{p.Ingress, p.Egress} {
		for _, r := range rules {
			n += len(r.Peers.List) + len(r.Ports.List)
		}
	}
	return n
}

func policyOf(c cluster.Change[cluster.Policy]) *cluster.Policy {
	if c.New != nil {
		return c.New
	}
	return c.Old
}

// eachPod calls f for what a pod was and is.
func eachPod(c cluster.Change[cluster.Pod], f func(*cluster.Pod)) {
	for _, p := range []*cluster.Pod{c.Old, c.New} {
		if p != nil {
			f(p)
		}
	}
}

func isLocal(c cluster.Change[cluster.Pod], node string) (local bool) {
	eachPod(c, func(p *cluster.Pod) { local = local || p.Node == node })
	return local
}

func namespaceOf(c cluster.Change[cluster.Pod]) (namespace string) {
	eachPod(c, func(p *cluster.Pod) { namespace = p.Key.Namespace })
	return namespace
}

func note(addrs map[netip.Addr]bool, c cluster.Change[cluster.Pod]) {
	eachPod(c, func(p *cluster.Pod) {
		for _, a := range p.IPs {
			addrs[a] = true
		}
	})
}

func sharesAddress(addrs map[netip.Addr]bool, c cluster.Change[cluster.Pod]) (shares bool) {
	eachPod(c, func(p *cluster.Pod) {
		for _, a := range p.IPs {
			shares = shares || addrs[a]
		}
	})
	return shares
}

// addressesOf returns those of the pods of this node.
func addressesOf(list []cluster.Change[cluster.Pod], node string) (addrs []netip.Addr) {
	for _, c := range list {
		if isLocal(c, node) {
			eachPod(c, func(p *cluster.Pod) { addrs = append(addrs, p.IPs...) })
		}
	}
	return addrs
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"net/netip"

	"github.com/podwall/podwall/internal/cluster"
)

// muchWork is how much a delta has to hold in addition to pods of this node before those
// are committed first: below that, two commits take longer than one. A pod of
// another node and an entry of a policy (cluster.Policy.Size) count as one each.
const muchWork = 500

// localFirst divides a delta. What comes first is little: the pods of this node,
// with everything that says what they may do at once (the policies of their
// namespaces, labels of namespaces, and other pods with their addresses). Pods of
// a namespace whose own policies are much work wait for these; where unknown pods
// are open, those that start do not wait: until then the policies that were there
// hold for them, and not none. The rest is the zero Delta if there is nothing to
// gain.
//
// A commit of the first part alone isolates every new pod by all policies that
// were there when it came. What is late by a commit is what others changed.
func localFirst(d cluster.Delta, node string, open bool) (first, rest cluster.Delta) {
	heavy := heavy(d.Policies)
	late := func(c cluster.Change[cluster.Pod]) bool { return heavy[namespaceOf(c)] && !(open && starts(c, node)) }
	namespaces, addrs, some := map[string]bool{}, map[netip.Addr]bool{}, false
	for _, c := range d.Pods {
		if isLocal(c, node) && !late(c) {
			some = true
			namespaces[namespaceOf(c)] = !heavy[namespaceOf(c)]
			note(addrs, c)
		}
	}
	if !some {
		return d, rest
	}
	first, rest = d, d
	first.Pods, first.Policies = nil, nil
	rest.Nodes, rest.Namespaces, rest.Pods, rest.Policies = nil, nil, nil, nil
	for _, c := range d.Pods {
		shares := sharesAddress(addrs, c)
		switch local := isLocal(c, node); {
		case local && late(c) && shares:
			return d, cluster.Delta{} // whose the address is must be decided at once
		case local && !late(c), shares:
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
	if len(rest.Pods)+entries(rest.Policies) < muchWork {
		return d, cluster.Delta{}
	}
	return first, rest
}

// heavy returns the namespaces whose changed policies are much work.
func heavy(list []cluster.Change[cluster.Policy]) map[string]bool {
	found := map[string]bool{}
	for ns, changes := range byNamespace(list) {
		found[ns] = entries(changes) >= muchWork
	}
	return found
}

func byNamespace(list []cluster.Change[cluster.Policy]) map[string][]cluster.Change[cluster.Policy] {
	by := map[string][]cluster.Change[cluster.Policy]{}
	for _, c := range list {
		ns := policyOf(c).Key.Namespace
		by[ns] = append(by[ns], c)
	}
	return by
}

// entries is what changed policies cost. One that is gone costs nothing.
func entries(list []cluster.Change[cluster.Policy]) (n int) {
	for _, c := range list {
		if c.New != nil {
			n += c.New.Size()
		}
	}
	return n
}

// starts reports whether the change is that of a pod of this node that nothing is
// known of yet.
func starts(c cluster.Change[cluster.Pod], node string) bool {
	return c.New != nil && c.New.Node == node && !c.New.Finished && !c.New.Terminating && !c.Old.Networked()
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

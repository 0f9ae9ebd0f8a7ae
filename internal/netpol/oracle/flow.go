// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"net/netip"

	"github.com/podwall/podwall/internal/cluster"
)

// Direction is a direction of traffic, seen from the subject.
type Direction uint8

// The directions. The zero value is none of them.
const (
	Ingress Direction = iota + 1
	Egress
)

// String returns "ingress" or "egress".
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Flow is a question: may Src open this flow to Dst? Addresses and port are those after Services
// were resolved and before masquerading.
type Flow struct {
	// Protocol is an IP protocol number. Numbers that the API cannot name (ICMP
	// is 1) are matched by rules without ports only.
	Protocol cluster.Protocol
	Src, Dst Endpoint
	// Port is the destination port, 0 for protocols without ports.
	Port uint16
}

// Endpoint is one end of a flow. Set Pod for a pod, Node (and Addr) for the node itself, and Addr
// alone for any other owner of that address.
type Endpoint struct {
	Pod  cluster.Key
	Node string
	// Addr is the address that the flow uses. For a pod it may be left out:
	// then it is the pod's first address of the family of the other end.
	Addr netip.Addr
	// Beyond is true for an endpoint that is not on a link of pods. It matters for a link-local
	// address: without Beyond it is that of a pod on the same link.
	Beyond bool
}

// Pod is the endpoint of a pod, by name.
func Pod(namespace, name string) Endpoint {
	return Endpoint{Pod: cluster.Key{Namespace: namespace, Name: name}}
}

// Outside is the endpoint at the address that is on no link of pods.
func Outside(a netip.Addr) Endpoint { return Endpoint{Addr: a, Beyond: true} }

// Addr is the endpoint at the address, whatever it is.
func Addr(a netip.Addr) Endpoint { return Endpoint{Addr: a} }

// Node is the endpoint of a node itself, or of anything that shares its
// network.
func Node(name string, a netip.Addr) Endpoint { return Endpoint{Node: name, Addr: a} }

// party is an endpoint after lookup: either a pod with a network of its own, or a node, or neither.
type party struct {
	pod    *cluster.Pod
	node   string
	beyond bool
	addr   netip.Addr
}

// parties looks up both ends. ok is false if one does not exist: a pod that is unknown or has no
// address.
func parties(snap *cluster.Snapshot, f Flow) (src, dst party, ok bool) {
	src, srcOK := lookUp(snap, f.Src)
	dst, dstOK := lookUp(snap, f.Dst)
	if !srcOK || !dstOK {
		return party{}, party{}, false
	}
	src.addr, dst.addr = addresses(src, dst)
	return src, dst, src.addr.IsValid() && dst.addr.IsValid()
}

func lookUp(snap *cluster.Snapshot, e Endpoint) (party, bool) {
	addr := e.Addr.Unmap().WithZone("")
	switch {
	case e.Pod != (cluster.Key{}):
		return lookUpPod(snap, e.Pod, addr)
	case e.Node != "":
		return party{node: e.Node, addr: addr}, addr.IsValid()
	}
	return party{pod: owner(snap, addr), beyond: e.Beyond, addr: addr}, addr.IsValid()
}

func lookUpPod(snap *cluster.Snapshot, k cluster.Key, addr netip.Addr) (party, bool) {
	for _, p := range snap.Pods {
		switch {
		case p.Key != k:
		case p.HostNetwork:
			// Its traffic cannot be told from the node's.
			if !addr.IsValid() && len(p.IPs) > 0 {
				addr = p.IPs[0]
			}
			return party{node: p.Node, addr: addr}, addr.IsValid()
		case p.Networked():
			return party{pod: p, addr: addr}, true
		}
	}
	// A finished pod sends nothing; its address may belong to another pod now.
	return party{pod: owner(snap, addr), addr: addr}, addr.IsValid()
}

// owner returns the pod that has the address now. If two claim it, the one that is not being
// deleted has it.
func owner(snap *cluster.Snapshot, a netip.Addr) *cluster.Pod {
	var found *cluster.Pod
	for _, p := range snap.Pods {
		if !p.Networked() || !has(p, a) {
			continue
		}
		if found == nil || found.Terminating && !p.Terminating {
			found = p
		}
	}
	return found
}

func has(p *cluster.Pod, a netip.Addr) bool {
	for _, ip := range p.IPs {
		if ip == a {
			return true
		}
	}
	return false
}

// addresses fills in the address of a pod that was given without one.
func addresses(src, dst party) (s, d netip.Addr) {
	switch {
	case !src.addr.IsValid() && !dst.addr.IsValid():
		for _, s := range src.pod.IPs {
			if d := ofFamily(dst.pod, s); d.IsValid() {
				return s, d
			}
		}
		return netip.Addr{}, netip.Addr{}
	case !src.addr.IsValid():
		return ofFamily(src.pod, dst.addr), dst.addr
	case !dst.addr.IsValid():
		return src.addr, ofFamily(dst.pod, src.addr)
	}
	return src.addr, dst.addr
}

func ofFamily(p *cluster.Pod, like netip.Addr) netip.Addr {
	for _, a := range p.IPs {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

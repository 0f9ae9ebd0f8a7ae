// SPDX-License-Identifier: Apache-2.0

// Package cluster holds the state of the cluster, reduced to what a policy decision needs:
// namespaces, pods and policies as immutable values, and the Store in which a source (the
// Kubernetes API, a directory of manifests) collects them.
//
// It is the start of the data path: sources write into a Store, the policy package reads the
// changes. It does no I/O and decides nothing. All text is parsed before it gets here: addresses,
// prefixes, selectors and protocols are typed values.
package cluster

import (
	"cmp"
	"net/netip"
	"slices"
)

// Key names a namespaced object.
type Key struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String returns namespace/name, or the bare name of a cluster-wide object.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Compare orders keys by namespace, then by name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// Namespace is a namespace and its labels.
type Namespace struct {
	Name   string
	Labels Labels
	// Mode is the value of ModeAnnotation, in quotes unless it is a mode; empty without the annotation.
	Mode string
}

// Pod is a pod, reduced to the fields that can change a verdict. It is immutable once it is in a
// Store.
type Pod struct {
	Key Key
	// UID may be empty: for pods from manifests, and for pods of other nodes.
	UID    string
	Labels Labels
	// Node is the node that the pod is bound to; empty while unscheduled.
	Node string
	// IPs are the pod's addresses (status.podIPs), unmapped and without
	// duplicates, in the order of the API.
	IPs []netip.Addr
	// Declared holds the other facts of the object; nil for none.
	Declared *Declared
	// HostNetwork pods have the node's addresses. The API leaves policies for them undefined. Here
	// they are neither subjects nor pod peers; their traffic is the node's.
	HostNetwork bool
	// Finished is true in phase Succeeded or Failed: the address may already belong to another pod.
	Finished bool
	// Terminating is true once a deletion timestamp is set. A terminating pod
	// still runs, so it stays a subject and a peer.
	Terminating bool
}

// Networked reports whether the pod has addresses of its own, to which policies can apply.
func (p *Pod) Networked() bool {
	return p != nil && !p.HostNetwork && !p.Finished && len(p.IPs) > 0
}

// Equal reports whether two pods are the same for every decision.
func (p *Pod) Equal(o *Pod) bool {
	if p == nil || o == nil {
		return p == o
	}
	return p.Key == o.Key && p.UID == o.UID && p.Node == o.Node &&
		p.HostNetwork == o.HostNetwork && p.Finished == o.Finished && p.Terminating == o.Terminating &&
		slices.Equal(p.Labels, o.Labels) && slices.Equal(p.IPs, o.IPs) && p.Declared.equal(o.Declared)
}

// NamedPort is a container port with a name. A rule that names a port means, for each destination
// pod, the port numbers that this pod declares under that name for the rule's protocol.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Protocol is an IP protocol number that a NetworkPolicy can name.
type Protocol uint8

// The protocols of the NetworkPolicy API. The zero value is none of them.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// Protocols lists all protocols, in the order in which they are printed.
var Protocols = [...]Protocol{TCP, UDP, SCTP}

// String returns the API's spelling: TCP, UDP or SCTP.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return "invalid"
}

// ParseProtocol reads the API's spelling. The API validates the exact upper
// case names, so nothing else is accepted.
func ParseProtocol(s string) (Protocol, bool) {
	for _, p := range Protocols {
		if p.String() == s {
			return p, true
		}
	}
	return 0, false
}

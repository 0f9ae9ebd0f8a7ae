// SPDX-License-Identifier: Apache-2.0

// Package oracle is the first witness of the service proxy: for one packet it reads Services and
// EndpointSlices as literally as it can and says which backends may get it, and whether the source is
// kept.
//
// It is naive on purpose: it reads every object for every packet, keeps nothing, and shares no code
// with packages service and program but the values of package cluster. The sources are the field
// comments of core/v1 and discovery/v1, whose words are quoted at the steps, KEP-1669 (terminating
// endpoints), KEP-1860 (ipMode), KEP-2086 (internal policy), KEP-2433 and KEP-3015 (hints), and where
// these say nothing the behaviour of kube-proxy; docs/design/services.md has the whole reading. The
// agent never uses it.
package oracle

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// Settings are what a node must know beside the objects of the cluster.
type Settings struct {
	Node                               string
	OwnAddresses, NodePortAddresses    []netip.Addr
	APIServer                          []netip.Addr
	ServiceRanges                      []netip.Prefix
	ClusterPods                        []netip.Prefix
	NodePods                           []netip.Prefix
	IPVS                               bool // whatever chooses, chooses among the same
	MasqueradeAll                      bool
	Strict                             bool
	ExternalRanges, LoadBalancerRanges []netip.Prefix
}

// Packet is the question: the first packet of a connection, as it arrives at the node or leaves a
// process of it.
type Packet struct {
	Protocol cluster.Protocol
	Src, Dst netip.Addr
	Port     uint16
	// FromNode is true if the source is an address of the node itself.
	FromNode bool
}

// Verdict is what may happen to a packet.
type Verdict uint8

// The verdicts.
const (
	NotOurs Verdict = iota
	Forward
	Reject
	Drop
)

// String returns the word of scenarios.
func (v Verdict) String() string { return [...]string{"not ours", "forward", "reject", "drop"}[v] }

// Answer is the result.
type Answer struct {
	Verdict Verdict
	// Backends are the allowed ones, sorted: each must be possible and no other may be.
	Backends []Backend
	// Sticky is for how many seconds the client comes back to the same backend.
	Sticky uint32
	// Service is the one that the client calls, ServicePort the number of its port; zero values for none.
	Service     cluster.Key
	ServicePort uint16
}

// by returns the answer as that of a Service's port.
func (a Answer) by(s *cluster.Service, port cluster.ServicePort) Answer {
	a.Service, a.ServicePort = s.Key, port.Port
	return a
}

// Backend is where the packet may go.
type Backend struct {
	To netip.AddrPort
	// SourceKept is false if the node puts its own address in place of the client's.
	SourceKept bool
}

// question is one packet, with everything that there is.
type question struct {
	snap *cluster.ServiceSnapshot
	set  Settings
	Packet
}

// Judge says what the node may do with a packet.
func Judge(snap *cluster.ServiceSnapshot, set Settings, p Packet) Answer {
	q := question{snap, set, p}
	for _, s := range q.byAge() {
		for _, port := range s.Ports {
			if port.Protocol != p.Protocol || port.Port != p.Port {
				continue
			}
			if slices.Contains(s.ClusterIPs, p.Dst) && !q.own() {
				return q.internal(s, port).by(s, port)
			}
			if q.servedOutside(s) {
				return q.external(s, port, q.balanced(s)).by(s, port)
			}
		}
	}
	if q.clusterAddress() {
		return Answer{Verdict: Reject}
	}
	if q.unassigned() {
		return Answer{Verdict: Drop}
	}
	if slices.Contains(set.NodePortAddresses, p.Dst) && !p.Dst.IsLoopback() {
		return q.nodePort()
	}
	return Answer{}
}

// nodePort answers a packet to an address of the node. nodePort: "the port on each node on which this
// service is exposed when type is NodePort or LoadBalancer".
func (q question) nodePort() Answer {
	for _, s := range q.byAge() {
		if s.External == nil || !q.exists(s) {
			continue
		}
		for _, port := range s.Ports {
			if port.Protocol == q.Protocol && port.NodePort == q.Port && q.Port != 0 {
				return q.external(s, port, false).by(s, port)
			}
		}
	}
	return Answer{}
}

// byAge returns the Services, the oldest first: of two that want one front it has it.
func (q question) byAge() []*cluster.Service {
	return slices.SortedFunc(slices.Values(q.snap.Services), func(a, b *cluster.Service) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), a.Key.Compare(b.Key))
	})
}

// clusterAddress reports whether some Service has the address: "clusterIP is the IP address of the
// service". Every port of it that is no port of the Service is closed.
func (q question) clusterAddress() bool {
	if q.own() {
		return false // whoever gave it to the Service was wrong: it is the node's
	}
	for _, s := range q.snap.Services {
		if slices.Contains(s.ClusterIPs, q.Dst) {
			return true
		}
	}
	return false
}

// own reports whether the address is one of this node.
func (q question) own() bool {
	return slices.Contains(q.set.OwnAddresses, q.Dst) || slices.Contains(q.set.NodePortAddresses, q.Dst)
}

// unassigned reports whether the address is one that a Service could have. A range that holds an
// address of the node is a mistake, and means nothing. The API server is never cut off.
func (q question) unassigned() bool {
	if slices.Contains(q.set.APIServer, q.Dst) {
		return false
	}
	for _, r := range q.set.ServiceRanges {
		mistake := false
		for _, a := range q.set.OwnAddresses {
			mistake = mistake || r.Contains(a)
		}
		for _, a := range q.set.NodePortAddresses {
			mistake = mistake || r.Contains(a)
		}
		if r.Contains(q.Dst) && !mistake {
			return true
		}
	}
	return false
}

// exists reports whether the Service exists in the packet's family: "the list of IP families
// assigned to this service".
func (q question) exists(s *cluster.Service) bool {
	for _, a := range s.ClusterIPs {
		if a.Is4() == q.Dst.Is4() {
			return true
		}
	}
	return false
}

// balanced reports whether the address is one of the Service's load balancer.
func (q question) balanced(s *cluster.Service) bool {
	return slices.Contains(s.External.LoadBalancerIPs, q.Dst)
}

// servedOutside reports whether the Service may be served at the address from outside: it is in
// "externalIPs" or an "ingress point" of its load balancer, and nobody else's.
func (q question) servedOutside(s *cluster.Service) bool {
	if s.External == nil || !q.exists(s) {
		return false
	}
	listed, balanced := slices.Contains(s.External.IPs, q.Dst), q.balanced(s)
	if q.set.Strict {
		listed = listed && inside(q.set.ExternalRanges, q.Dst)
		balanced = balanced && inside(q.set.LoadBalancerRanges, q.Dst)
	}
	return (listed || balanced) && !q.reserved()
}

// reserved reports whether the address is somebody's: of this node, of another, of a Service or of a
// pod; or can be nobody's.
func (q question) reserved() bool {
	a := q.Dst
	if a.IsLoopback() || a.IsMulticast() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
		return true
	}
	if q.own() || slices.Contains(q.set.APIServer, a) || q.clusterAddress() {
		return true
	}
	for _, n := range q.snap.Nodes {
		if slices.Contains(n.Addrs, a) {
			return true
		}
	}
	for _, p := range q.snap.Pods {
		if p.Networked() && slices.Contains(p.IPs, a) {
			return true
		}
	}
	return false
}

// internal answers a packet to the cluster address. internalTrafficPolicy: "if set to Local, the
// proxy will assume that pods only want to talk to endpoints of the service on the same node as the
// pod, dropping the traffic if there are no local endpoints"; Cluster "uses the standard behavior of
// routing to all endpoints evenly (possibly modified by topology and other features)".
func (q question) internal(s *cluster.Service, port cluster.ServicePort) Answer {
	all := q.endpoints(s, port)
	masquerade := q.set.MasqueradeAll || q.podsKnown() && !inside(q.set.ClusterPods, q.Src)
	if s.InternalLocal {
		return q.answer(s, local(all), len(everywhere(all)) > 0, masquerade)
	}
	return q.answer(s, everywhere(all), false, masquerade)
}

// podsKnown reports whether pods of the packet's family can be told from others.
func (q question) podsKnown() bool {
	return slices.ContainsFunc(q.set.ClusterPods, func(p netip.Prefix) bool { return p.Addr().Is4() == q.Dst.Is4() })
}

// external answers a packet to an external address, the load balancer's or a node port.
// externalTrafficPolicy: "if set to Local, the proxy will configure the service in a way that assumes
// that external load balancers will take care of balancing the service traffic between nodes, and so
// each node will deliver traffic only to the node-local endpoints of the service, without masquerading
// the client source IP. (Traffic mistakenly sent to a node with no endpoints will be dropped.) …
// Note that traffic sent to an External IP or LoadBalancer IP from within the cluster will always get
// Cluster semantics". Within means here: from this node or a pod on it.
func (q question) external(s *cluster.Service, port cluster.ServicePort, balanced bool) Answer {
	if balanced && !q.admitted(s) {
		return Answer{Verdict: Drop}
	}
	all := q.endpoints(s, port)
	switch {
	case !s.External.Local:
		return q.answer(s, everywhere(all), false, true)
	case q.FromNode || inside(q.set.NodePods, q.Src):
		return q.answer(s, everywhere(all), false, !inside(q.set.ClusterPods, q.Src))
	}
	return q.answer(s, local(all), len(everywhere(all)) > 0, false)
}

// admitted says whether loadBalancerSourceRanges let the client in: "this will restrict traffic
// through the cloud-provider load-balancer … to the specified client IPs". A node that may come in
// may do so with the address of the load balancer, which it uses if it has that address itself.
func (q question) admitted(s *cluster.Service) bool {
	if !s.External.Restricted {
		return true
	}
	for _, r := range s.External.SourceRanges {
		if r.Contains(q.Src) || r.Bits() == 0 && r.Addr().Is4() == q.Dst.Is4() {
			return true
		}
		if q.Src == q.Dst && r.Contains(q.nodeAddress()) {
			return true
		}
	}
	return false
}

// nodeAddress returns the address under which others know the node, of the packet's family.
func (q question) nodeAddress() netip.Addr {
	for _, n := range q.snap.Nodes {
		for _, a := range n.Addrs {
			if n.Name == q.set.Node && a.Is4() == q.Dst.Is4() {
				return a
			}
		}
	}
	return netip.Addr{}
}

// answer chooses among endpoints. Without one, "elsewhere" says whether others have endpoints.
func (q question) answer(s *cluster.Service, list []*endpoint, elsewhere, masquerade bool) Answer {
	if len(list) == 0 && elsewhere {
		return Answer{Verdict: Drop}
	}
	if len(list) == 0 {
		return Answer{Verdict: Reject}
	}
	a := Answer{Verdict: Forward, Sticky: s.Affinity}
	for _, e := range list {
		// What a pod sends to itself must come back through the node.
		itself := e.at.Addr() == q.Src && (e.own || inside(q.set.NodePods, q.Src))
		a.Backends = append(a.Backends, Backend{e.at, !masquerade && !itself})
	}
	slices.SortFunc(a.Backends, func(a, b Backend) int { return a.To.Compare(b.To) })
	return a
}

func inside(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

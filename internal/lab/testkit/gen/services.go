// SPDX-License-Identifier: Apache-2.0

package gen

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/proxy/oracle"
)

// Services is a random cluster with Services. Objects are made as those of the API and go through
// package convert. The zero value is empty.
type Services struct {
	services map[cluster.Key]*cluster.Service
	slices   map[cluster.Key]*cluster.EndpointSlice
	nodes    map[cluster.Key]*cluster.Node
	pods     map[cluster.Key]*cluster.Pod
}

// ServiceRange is where the cluster addresses of this world are, by family.
func ServiceRange(v4 bool) netip.Prefix {
	if v4 {
		return netip.MustParsePrefix("10.96.0.0/28")
	}
	return netip.MustParsePrefix("fd00:96::/124")
}

// PodRange is where the addresses of pods are: those of node one, or of all.
func PodRange(v4, ownOnly bool) netip.Prefix {
	text := map[[2]bool]string{{true, false}: "10.0.0.0/24", {true, true}: "10.0.0.0/29",
		{false, false}: "fd10::/120", {false, true}: "fd10::/125"}[[2]bool{v4, ownOnly}]
	return netip.MustParsePrefix(text)
}

func clusterIP(t *rapid.T, v4 bool) string {
	n := rapid.IntRange(1, 5).Draw(t, "cluster address")
	if v4 {
		return fmt.Sprintf("10.96.0.%d", n)
	}
	return fmt.Sprintf("fd00:96::%d", n)
}

// outer returns an external address: mostly a free one, sometimes one that somebody has.
func outer(t *rapid.T) string {
	n := rapid.IntRange(1, 3).Draw(t, "outer")
	return pick(t, "outer address", fmt.Sprintf("192.0.2.%d", n), fmt.Sprintf("192.0.2.%d", n),
		fmt.Sprintf("192.0.2.%d", n), fmt.Sprintf("2001:db8::%d", n), fmt.Sprintf("2001:db8::%d", n),
		fmt.Sprintf("192.168.0.%d", n), fmt.Sprintf("10.96.0.%d", n), fmt.Sprintf("10.0.0.%d", n), "127.0.0.1")
}

// Service returns a Service.
func Service(t *rapid.T) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: pick(t, "service namespace", "a", "a", "b"), Name: pick(t, "service", serviceNames()...),
		CreationTimestamp: metav1.Unix(int64(rapid.IntRange(1, 3).Draw(t, "created")), 0),
	}}
	spec := &s.Spec
	spec.ClusterIPs = pick(t, "service families", []string{clusterIP(t, true)}, []string{clusterIP(t, true)},
		[]string{clusterIP(t, true), clusterIP(t, false)}, []string{clusterIP(t, true), clusterIP(t, false)},
		[]string{clusterIP(t, false)})
	spec.Type = pick(t, "type", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeLoadBalancer)
	for i := range rapid.IntRange(1, 2).Draw(t, "ports") {
		p := corev1.ServicePort{Name: pick(t, "port name", "", "x"), Port: pick[int32](t, "port", 80, 81),
			Protocol: pick(t, "port protocol", corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP,
				corev1.ProtocolSCTP)}
		if spec.Type != corev1.ServiceTypeClusterIP {
			p.NodePort = pick[int32](t, "node port", 30001, 30002, 30003, 0) + int32(i)
		}
		spec.Ports = append(spec.Ports, p)
	}
	exposure(t, s)
	if rarely(t, "sticky", 3) {
		seconds := int32(rapid.IntRange(1, 2).Draw(t, "timeout"))
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
			ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	switch rapid.IntRange(1, 30).Draw(t, "oddity") {
	case 1:
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
	case 2:
		spec.Type = corev1.ServiceTypeExternalName
	case 3:
		s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": ""}
	}
	return s
}

func serviceNames() []string { return []string{"s", "t", "u"} }

// exposure sets how a Service is reached from outside, and its policies.
func exposure(t *rapid.T, s *corev1.Service) {
	spec := &s.Spec
	policies := []corev1.ServiceInternalTrafficPolicy{"", corev1.ServiceInternalTrafficPolicyCluster,
		corev1.ServiceInternalTrafficPolicyLocal}
	if p := pick(t, "internal policy", policies...); p != "" {
		spec.InternalTrafficPolicy = &p
	}
	spec.ExternalTrafficPolicy = pick(t, "external policy", "", corev1.ServiceExternalTrafficPolicyCluster,
		corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceExternalTrafficPolicyLocal)
	for range rapid.IntRange(0, 2).Draw(t, "external addresses") {
		spec.ExternalIPs = append(spec.ExternalIPs, outer(t))
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return
	}
	for range rapid.IntRange(0, 2).Draw(t, "load balancers") {
		in := corev1.LoadBalancerIngress{IP: outer(t)}
		if mode := pick(t, "mode", "", corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy); mode != "" {
			in.IPMode = &mode
		}
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, in)
	}
	spec.HealthCheckNodePort = pick[int32](t, "health port", 0, 32000, 32001)
	for range rapid.IntRange(0, 2).Draw(t, "source ranges") {
		spec.LoadBalancerSourceRanges = append(spec.LoadBalancerSourceRanges,
			pick(t, "source range", "10.0.0.0/30", "10.0.0.0/28", " 192.168.0.0/24", "203.0.113.0/24", "fd10::/126",
				"fd00::/16", "0.0.0.0/0", "::/0", "192.0.2.0/30"))
	}
}

// Slice returns an EndpointSlice.
func Slice(t *rapid.T) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: pick(t, "address type", discoveryv1.AddressTypeIPv4,
		discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)}
	s.Namespace, s.Name = pick(t, "slice namespace", "a", "a", "b"), pick(t, "slice", "1", "2", "3", "4", "5")
	s.Labels = map[string]string{discoveryv1.LabelServiceName: pick(t, "slice of", serviceNames()...)}
	for _, name := range []string{"", "x"} {
		for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
			if port := pick[int32](t, "slice port", 8080, 8080, 8081, 0); port != 0 {
				s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Protocol: &protocol, Port: &port})
			}
		}
	}
	hinted := pick(t, "hints", 0, 2, 1, 2, 3) // bits: nodes, zones
	for range pick(t, "endpoints", 3, 2, 4, 1, 0) {
		s.Endpoints = append(s.Endpoints, endpoint(t, s.AddressType == discoveryv1.AddressTypeIPv4, hinted))
	}
	return s
}

func endpoint(t *rapid.T, v4 bool, hinted int) discoveryv1.Endpoint {
	n := rapid.IntRange(1, 12).Draw(t, "endpoint")
	e := discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.0.%d", n)}}
	if !v4 {
		e.Addresses[0] = fmt.Sprintf("fd10::%x", n)
	}
	node := "two"
	if n < 8 {
		node = "one"
	}
	if n%6 != 0 { // all slices agree on the node of an address
		e.NodeName = &node
	}
	state := pick(t, "state", "ready", "ready", "ready", "draining", "draining", "not", "stopping", "waiting",
		"unset")
	if state != "unset" {
		ready, serving := state == "ready", state == "ready" || state == "draining" || state == "waiting"
		terminating := state == "draining" || state == "stopping"
		e.Conditions = discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating}
	}
	if hinted == 0 || rarely(t, "no hint", 8) {
		return e
	}
	e.Hints = &discoveryv1.EndpointHints{}
	for _, name := range pick(t, "hinted", []string{"one"}, []string{"two"}, []string{"one", "two"}) {
		if hinted&1 != 0 {
			e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: name})
		}
		if hinted&2 != 0 {
			e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: "zone-" + name})
		}
	}
	return e
}

// node returns a Node of this world.
func node(t *rapid.T) *corev1.Node {
	n := &corev1.Node{}
	n.Name = pick(t, "node", Nodes()...)
	if zone := pick(t, "zone", "", "zone-"+n.Name, "zone-"+n.Name, "zone-two"); zone != "" {
		n.Labels = map[string]string{corev1.LabelTopologyZone: zone}
	}
	for _, v4 := range pick(t, "node families", []bool{true}, []bool{true, false}, []bool{false, true}, nil) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP,
			Address: NodeAddr(n.Name, v4).String()})
	}
	return n
}

// Change makes one to three random changes and returns them.
func (w *Services) Change(t *rapid.T) *cluster.ServiceDelta {
	if w.services == nil {
		w.services, w.slices = map[cluster.Key]*cluster.Service{}, map[cluster.Key]*cluster.EndpointSlice{}
		w.nodes, w.pods = map[cluster.Key]*cluster.Node{}, map[cluster.Key]*cluster.Pod{}
	}
	before := w.clone()
	for range pick(t, "changes", 2, 1, 3) {
		w.change(t)
	}
	return &cluster.ServiceDelta{
		Services: changes(before.services, w.services), Slices: changes(before.slices, w.slices),
		Nodes: changes(before.nodes, w.nodes), Pods: changes(before.pods, w.pods)}
}

func (w *Services) clone() *Services {
	return &Services{maps.Clone(w.services), maps.Clone(w.slices), maps.Clone(w.nodes), maps.Clone(w.pods)}
}

func changes[T any](before, after map[cluster.Key]*T) (list []cluster.Change[T]) {
	for k, old := range before {
		if after[k] != old {
			list = append(list, cluster.Change[T]{Old: old, New: after[k]})
		}
	}
	for k, now := range after {
		if before[k] == nil {
			list = append(list, cluster.Change[T]{New: now})
		}
	}
	return list
}

func (w *Services) change(t *rapid.T) {
	switch pick(t, "kind", "service", "service", "service", "slice", "slice", "slice", "slice", "slice", "node",
		"node", "pod", "-service", "-slice", "-node", "-pod") {
	case "service":
		s := Service(t)
		v, _ := convert.Service(s)
		put(w.services, cluster.Key{Namespace: s.Namespace, Name: s.Name}, v)
	case "slice":
		s := Slice(t)
		v, _ := convert.EndpointSlice(s)
		put(w.slices, cluster.Key{Namespace: s.Namespace, Name: s.Name}, v)
	case "node":
		n := node(t)
		put(w.nodes, cluster.Key{Name: n.Name}, convert.Node(n))
	case "pod":
		p := Pod(t)
		put(w.pods, p.Key, p)
	case "-service":
		remove(t, w.services)
	case "-slice":
		remove(t, w.slices)
	case "-node":
		remove(t, w.nodes)
	case "-pod":
		remove(t, w.pods)
	}
}

func put[T any](m map[cluster.Key]*T, k cluster.Key, v *T) {
	if m[k] = v; v == nil {
		delete(m, k)
	}
}

func remove[T any](t *rapid.T, m map[cluster.Key]*T) {
	if keys := slices.SortedFunc(maps.Keys(m), cluster.Key.Compare); len(keys) > 0 {
		delete(m, pick(t, "removed", keys...))
	}
}

// Snapshot returns the cluster as it is, in random order.
func (w *Services) Snapshot(t *rapid.T) *cluster.ServiceSnapshot {
	return &cluster.ServiceSnapshot{Services: mixed(t, w.services), Slices: mixed(t, w.slices),
		Nodes: mixed(t, w.nodes), Pods: mixed(t, w.pods)}
}

func mixed[T any](t *rapid.T, m map[cluster.Key]*T) (list []*T) {
	for _, k := range slices.SortedFunc(maps.Keys(m), cluster.Key.Compare) {
		list = append(list, m[k])
	}
	if len(list) < 2 {
		return list
	}
	return rapid.Permutation(list).Draw(t, "order")
}

// ServiceSettings are those of node one in this world.
func ServiceSettings(t *rapid.T) oracle.Settings {
	coin := func(label string) bool { return rapid.Bool().Draw(t, label) }
	s := oracle.Settings{Node: "one", MasqueradeAll: rapid.IntRange(1, 5).Draw(t, "masquerade all") == 1,
		Strict: coin("strict"), NodePortAddresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	for _, v4 := range []bool{true, false} {
		s.OwnAddresses = append(s.OwnAddresses, NodeAddr("one", v4))
		s.ServiceRanges = append(s.ServiceRanges, ServiceRange(v4))
		s.NodePods = append(s.NodePods, PodRange(v4, true))
		if rapid.IntRange(1, 6).Draw(t, "no pod range") > 1 {
			s.ClusterPods = append(s.ClusterPods, PodRange(v4, false))
		}
		if rapid.IntRange(1, 6).Draw(t, "no node ports") > 1 {
			s.NodePortAddresses = append(s.NodePortAddresses, NodeAddr("one", v4))
		}
	}
	if rapid.IntRange(1, 4).Draw(t, "the API server has an outer address") == 1 {
		s.APIServer = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	}
	if rapid.IntRange(1, 6).Draw(t, "the API server has a cluster address") == 1 {
		s.APIServer = append(s.APIServer, netip.MustParseAddr("10.96.0.2"), netip.MustParseAddr("fd00:96::2"))
	}
	if rapid.IntRange(1, 10).Draw(t, "the node has a cluster address") == 1 {
		s.OwnAddresses = append(s.OwnAddresses, netip.MustParseAddr("10.96.0.1"))
	}
	if coin("ranges") {
		six := netip.MustParsePrefix("2001:db8::/32")
		s.ExternalRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/31"), six}
		s.LoadBalancerRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/31"), six}
	}
	return s
}

// ServicePacket is the first packet of a connection.
type ServicePacket struct {
	Protocol cluster.Protocol
	Src, Dst netip.Addr
	Port     uint16
	// FromNode says that the source is an address of node one.
	FromNode bool
}

// Packets returns packets of one random client to everything in this world, in one family.
func Packets(t *rapid.T) (list []ServicePacket) {
	v4 := pick(t, "family", true, true, false)
	n := rapid.IntRange(1, 12).Draw(t, "client pod")
	addr := func(four, six string) netip.Addr {
		if v4 {
			return netip.MustParseAddr(four)
		}
		return netip.MustParseAddr(six)
	}
	src := pick(t, "client", addr(fmt.Sprintf("10.0.0.%d", n), fmt.Sprintf("fd10::%x", n)),
		addr("203.0.113.9", "2001:db8:9::9"), NodeAddr("one", v4), NodeAddr("two", v4),
		addr(fmt.Sprintf("192.0.2.%d", n%3+1), fmt.Sprintf("2001:db8::%d", n%3+1)))
	fromNode := src == NodeAddr("one", v4) || rarely(t, "from node", 20)
	to := []netip.Addr{NodeAddr("one", v4), NodeAddr("two", v4), addr("127.0.0.1", "::1"),
		addr("10.96.0.9", "fd00:96::9"), addr("10.0.0.1", "fd10::1"), addr("10.0.0.2", "fd10::2"),
		addr("10.0.0.3", "fd10::3")}
	for i := range 5 {
		to = append(to, addr(fmt.Sprintf("10.96.0.%d", i+1), fmt.Sprintf("fd00:96::%d", i+1)))
	}
	for i := range 3 {
		to = append(to, addr(fmt.Sprintf("192.0.2.%d", i+1), fmt.Sprintf("2001:db8::%d", i+1)))
	}
	for _, dst := range to {
		for _, port := range []uint16{80, 81, 30001, 30002, 30003, 30004, 22} {
			for _, protocol := range cluster.Protocols {
				list = append(list, ServicePacket{protocol, src, dst, port, fromNode})
			}
		}
	}
	return list
}

// SPDX-License-Identifier: Apache-2.0

package complete

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/endpoints"
)

// Front is one port of a Service at one of its addresses.
type Front struct {
	Name     string // namespace/name
	PortName string // empty if the port has none
	Front    netip.AddrPort
	// Others are further addresses of the family that lead to the same pods: external
	// ones, and those of load balancers.
	Others   []netip.Addr
	Protocol cluster.Protocol
	// NodePort is the port of the nodes that leads to the same pods; 0 if there is none.
	NodePort uint16
	// LocalOnly is true if the node port leads to pods of the same node only
	// (externalTrafficPolicy: Local), InternalLocalOnly if the Service does
	// (internalTrafficPolicy: Local).
	LocalOnly, InternalLocalOnly bool
	// Backends may be none: connections are refused then. Those on the network of a node
	// are among them.
	Backends []netip.AddrPort
}

// Has reports whether an address leads to the port.
func (f Front) Has(a netip.Addr) bool { return f.Front.Addr() == a || slices.Contains(f.Others, a) }

// Fronts returns where the Services with a selector lead to. A Service without an
// address gets one that is not taken; a headless one has none.
func Fronts(services []*corev1.Service, pods []*cluster.Pod, taken func(netip.Addr) bool) []Front {
	var list []Front
	free := numbered(taken)
	for _, s := range services {
		if len(s.Spec.Selector) == 0 || s.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		for _, a := range clusterIPs(s, free) {
			for _, p := range s.Spec.Ports {
				if f, ok := front(s, p, a, pods); ok {
					list = append(list, f)
				}
			}
		}
	}
	return list
}

func front(s *corev1.Service, p corev1.ServicePort, a netip.Addr, pods []*cluster.Pod) (Front, bool) {
	protocol, ok := endpoints.Protocol(p)
	if !ok || p.Port < 1 || p.Port > 65535 {
		return Front{}, false
	}
	f := NewFront(s, p, a, protocol)
	f.Backends = backends(s, p, protocol, a.Is6(), pods)
	return f, true
}

// NewFront returns a port of a Service at one of its addresses, without backends.
func NewFront(s *corev1.Service, p corev1.ServicePort, a netip.Addr, protocol cluster.Protocol) Front {
	f := Front{Name: s.Namespace + "/" + s.Name, PortName: p.Name, Front: netip.AddrPortFrom(a, uint16(p.Port)),
		Others: otherAddresses(s, a.Is6()), Protocol: protocol,
		LocalOnly: s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal}
	if policy := s.Spec.InternalTrafficPolicy; policy != nil {
		f.InternalLocalOnly = *policy == corev1.ServiceInternalTrafficPolicyLocal
	}
	if p.NodePort > 0 && p.NodePort <= 65535 {
		f.NodePort = uint16(p.NodePort)
	}
	return f
}

// otherAddresses returns the external addresses of a Service, and those that its load
// balancer has, of one family.
func otherAddresses(s *corev1.Service, v6 bool) (list []netip.Addr) {
	texts := slices.Clone(s.Spec.ExternalIPs)
	for _, i := range s.Status.LoadBalancer.Ingress {
		if i.IPMode == nil || *i.IPMode == corev1.LoadBalancerIPModeVIP { // else the packet goes to the load balancer
			texts = append(texts, i.IP)
		}
	}
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil && a.Unmap().Is6() == v6 && !slices.Contains(list, a.Unmap()) {
			list = append(list, a.Unmap())
		}
	}
	return list
}

func clusterIPs(s *corev1.Service, free func() []netip.Addr) []netip.Addr {
	var list []netip.Addr
	for _, text := range append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(list, a.Unmap()) {
			list = append(list, a.Unmap())
		}
	}
	if len(list) > 0 {
		return list
	}
	return free()
}

// numbered returns a function that gives the next addresses of Services.
func numbered(taken func(netip.Addr) bool) func() []netip.Addr {
	next := 0
	return func() []netip.Addr {
		for ; ; next++ {
			third, fourth := byte(next/200), byte(next%200+10)
			four := netip.AddrFrom4([4]byte{10, 96, third, fourth})
			six := netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 5: 0x96, 14: third, 15: fourth})
			if !taken(four) && !taken(six) {
				next++
				return []netip.Addr{four, six}
			}
		}
	}
}

func backends(s *corev1.Service, p corev1.ServicePort, protocol cluster.Protocol, v6 bool,
	pods []*cluster.Pod) []netip.AddrPort {
	var list []netip.AddrPort
	for _, pod := range endpoints.Selected(s, pods) {
		number := endpoints.TargetPort(p, protocol, pod)
		if pod.Terminating || number == 0 { // a pod that ends gets no new connections
			continue
		}
		for _, a := range pod.IPs {
			if a.Is6() == v6 {
				list = append(list, netip.AddrPortFrom(a, number))
			}
		}
	}
	return list
}

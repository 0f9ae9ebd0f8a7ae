// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// EndpointSlice converts an EndpointSlice without sharing memory with other slices.
func EndpointSlice(s *discoveryv1.EndpointSlice) (*cluster.EndpointSlice, []cluster.Diagnostic) {
	return (*Interner)(nil).EndpointSlice(s)
}

// EndpointSlice converts an EndpointSlice. It returns nil for one without a Service, or whose
// endpoints the proxy cannot serve. The result does not reference s.
func (in *Interner) EndpointSlice(s *discoveryv1.EndpointSlice) (*cluster.EndpointSlice, []cluster.Diagnostic) {
	service := s.Labels[discoveryv1.LabelServiceName]
	if service == "" || others(s.Labels) {
		return nil, nil
	}
	r := &reader{kind: KindSlice, object: cluster.Key{Namespace: in.text(s.Namespace), Name: strings.Clone(s.Name)}}
	var family inet.Family
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4:
		family = inet.IPv4
	case discoveryv1.AddressTypeIPv6:
		family = inet.IPv6
	case discoveryv1.AddressTypeFQDN:
		r.warn("addressType", "endpoints that are host names are not served", "use a slice of addresses")
		return nil, r.findings()
	default:
		r.fail("addressType", fmt.Sprintf("unknown type %.20q: the endpoints are not served", s.AddressType),
			"write IPv4 or IPv6")
		return nil, r.findings()
	}
	v := &cluster.EndpointSlice{Key: r.object, Service: strings.Clone(service), Ports: r.endpointPorts(s.Ports),
		Triggered: triggered(s.Annotations[corev1.EndpointsLastChangeTriggerTime])}
	v.Endpoints = make([]cluster.Endpoint, 0, len(s.Endpoints))
	for i := range s.Endpoints {
		a, ok := r.endpointAddress(fmt.Sprintf("endpoints[%d].addresses", i), s.Endpoints[i].Addresses, family)
		if ok {
			v.Endpoints = append(v.Endpoints, cluster.Endpoint{Addr: a, Placement: in.placed(&s.Endpoints[i])})
		}
	}
	v.Endpoints = slices.Clip(v.Endpoints)
	return v, r.findings()
}

// triggered reads when the change happened that made the controller write a slice; 0 for a text that is
// no time of this age.
func triggered(text string) int64 {
	var at metav1.Time
	const last = 1 << 33 // seconds; what nanoseconds can express ends soon after
	if at.Time.UnmarshalText([]byte(text)) != nil || at.Unix() < 0 || at.Unix() > last {
		return 0
	}
	return at.UnixNano()
}

// endpointPorts reads the ports of a slice.
func (r *reader) endpointPorts(raw []discoveryv1.EndpointPort) []cluster.EndpointPort {
	raw = some(r, "ports", raw)
	list := make([]cluster.EndpointPort, 0, len(raw))
	for i, p := range raw {
		field := fmt.Sprintf("ports[%d]", i)
		if p.Port == nil {
			r.warn(field+".port", "a port without a number stands for all ports, which a Service cannot have: "+
				"it is not served", "write the number")
			continue
		}
		protocol, known := r.protocol(field, string(value(p.Protocol)))
		port, ok := r.servedPort(field+".port", *p.Port)
		if known && ok {
			name := strings.Clone(value(p.Name))
			list = append(list, cluster.EndpointPort{Name: name, Protocol: protocol, Port: port})
		}
	}
	return list
}

// endpointAddress reads the address of an endpoint. The API: "no semantics are defined for additional
// addresses beyond the first".
func (r *reader) endpointAddress(field string, texts []string, f inet.Family) (netip.Addr, bool) {
	if len(texts) == 0 {
		r.fail(field, "the endpoint has no address: it is not served", "remove the endpoint")
		return netip.Addr{}, false
	}
	a, ok := plainAddress(texts[0])
	why := "no address"
	if ok {
		why = unusable(a)
		if why == "" && inet.FamilyOf(a) != f {
			why = "of the other family than the slice"
		}
	}
	if why != "" {
		r.fail(field+"[0]", fmt.Sprintf("%.60q is %s: the endpoint is not served", texts[0], why),
			"write an address that the nodes can reach, as 192.0.2.1 or 2001:db8::1")
		return a, false
	}
	return a, true
}

// placed reads where an endpoint is, and its conditions. The API: a nil value of ready and serving
// "should be interpreted as true", of terminating as false.
func (in *Interner) placed(e *discoveryv1.Endpoint) *cluster.Placement {
	p := cluster.Placement{
		Node:        value(e.NodeName),
		Ready:       e.Conditions.Ready == nil || *e.Conditions.Ready,
		Serving:     e.Conditions.Serving == nil || *e.Conditions.Serving,
		Terminating: value(e.Conditions.Terminating),
	}
	if e.Hints != nil {
		for _, n := range e.Hints.ForNodes {
			p.NodeHints = append(p.NodeHints, n.Name)
		}
		for _, z := range e.Hints.ForZones {
			p.ZoneHints = append(p.ZoneHints, z.Name)
		}
		slices.Sort(p.NodeHints)
		slices.Sort(p.ZoneHints)
	}
	return in.placement(p)
}

// value returns what the pointer points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

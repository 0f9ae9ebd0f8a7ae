// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kuberouter/annotations"
)

// LabelProxyName marks Services and EndpointSlices that another proxy serves, whatever its value.
const LabelProxyName = "service.kubernetes.io/service-proxy-name"

// The timeout of session affinity, in seconds: the API's default, and the longest that it allows.
const (
	defaultTimeout = uint32(corev1.DefaultClientIPServiceAffinitySeconds)
	maxTimeout     = 86400
)

// maxListed is how many entries of a list of a Service or of the ports of a slice are read. The API has
// no bound; a Service with more ports or addresses is not one that somebody wrote.
const maxListed = 1024

// some returns the entries of a list that are read.
func some[T any](r *reader, field string, list []T) []T {
	if len(list) > maxListed {
		r.fail(field, fmt.Sprintf("the list has %d entries: those after the first %d are not served", len(list),
			maxListed), "use several Services")
		return list[:maxListed]
	}
	return list
}

// Service converts a Service. It returns nil for one that the proxy does not serve: an
// ExternalName, one without a cluster address or one that is labelled as another's. The result does
// not reference s.
func Service(s *corev1.Service) (*cluster.Service, []cluster.Diagnostic) {
	spec := &s.Spec
	if others(s.Labels) || spec.Type == corev1.ServiceTypeExternalName ||
		spec.ClusterIP == corev1.ClusterIPNone || slices.Contains(spec.ClusterIPs, corev1.ClusterIPNone) {
		return nil, nil
	}
	r := &reader{kind: KindService}
	r.object = cluster.Key{Namespace: strings.Clone(s.Namespace), Name: strings.Clone(s.Name)}
	v := &cluster.Service{Key: r.object, ClusterIPs: r.clusterIPs(spec)}
	if !s.CreationTimestamp.IsZero() {
		v.Created = s.CreationTimestamp.Unix()
	}
	if len(v.ClusterIPs) == 0 {
		return nil, r.findings()
	}
	v.Ports = r.servicePorts(spec)
	v.Affinity = r.affinity(spec)
	if p := spec.InternalTrafficPolicy; p != nil {
		v.InternalLocal = r.local("spec.internalTrafficPolicy", string(*p))
	}
	v.External = r.external(s, v)
	r.annotated(s.Annotations, v)
	return v, r.findings()
}

// annotated takes over what annotations of kube-router ask for.
func (r *reader) annotated(all map[string]string, v *cluster.Service) {
	asked, found := annotations.Read(all)
	for _, f := range found {
		say := r.warn
		if f.Lost {
			say = r.fail
		}
		say(fmt.Sprintf("metadata.annotations[%s]", f.Annotation), f.Message, f.Cure)
	}
	v.Scheduler, v.SchedulerOptions = strings.Clone(asked.Scheduler), asked.Options
	if v.External == nil {
		return
	}
	v.External.Local = v.External.Local || asked.ExternalLocal
	if asked.SkipLoadBalancer {
		v.External.LoadBalancerIPs = nil
	}
}

// others reports whether the labels say that the object is not for this proxy.
func others(labels map[string]string) bool {
	_, proxy := labels[LabelProxyName]
	_, headless := labels[corev1.IsHeadlessService]
	return proxy || headless
}

// clusterIPs reads spec.clusterIPs, or spec.clusterIP if only that is set.
func (r *reader) clusterIPs(spec *corev1.ServiceSpec) (list []netip.Addr) {
	texts := spec.ClusterIPs
	if len(texts) == 0 && spec.ClusterIP != "" {
		texts = []string{spec.ClusterIP}
	}
	for i, text := range texts {
		field := fmt.Sprintf("spec.clusterIPs[%d]", i)
		a, ok := r.frontAddress(field, text)
		if !ok {
			continue
		}
		if slices.ContainsFunc(list, func(o netip.Addr) bool { return o.Is4() == a.Is4() }) {
			r.fail(field, fmt.Sprintf("%s is a second address of its family: it is not served", a),
				"keep one address of each family")
			continue
		}
		list = append(list, a)
	}
	return list
}

// frontAddress reads an address at which a Service is to be served. Texts that programs read
// differently (leading zeros, IPv4 written as IPv6) are not understood: the packets of another
// address must not be captured.
func (r *reader) frontAddress(field, text string) (netip.Addr, bool) {
	a, ok := plainAddress(text)
	if !ok {
		r.fail(field, fmt.Sprintf("%.60q is no address: the Service is not served there", text),
			"write it as 192.0.2.1 or 2001:db8::1, without leading zeros, zone or port")
		return a, false
	}
	if why := unusable(a); why != "" {
		r.fail(field, fmt.Sprintf("%s is %s: the Service is not served there", a, why),
			"use an address that is routed to the cluster's nodes")
		return a, false
	}
	return a, true
}

// plainAddress reads an address in the one way in which every program reads it.
func plainAddress(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && a.Zone() == "" && !a.Is4In6()
}

// unusable says why an address can neither be a Service's nor an endpoint's; "" if it can.
func unusable(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "the unspecified address"
	case a.Is4() && a.As4()[0] == 0:
		return "an address of this network (0.0.0.0/8)"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}

// servicePorts reads the ports. A node port belongs to the types NodePort and LoadBalancer.
func (r *reader) servicePorts(spec *corev1.ServiceSpec) []cluster.ServicePort {
	ports := some(r, "spec.ports", spec.Ports)
	list := make([]cluster.ServicePort, 0, len(ports))
	for i := range ports {
		raw, field := &ports[i], fmt.Sprintf("spec.ports[%d]", i)
		protocol, known := r.protocol(field, string(raw.Protocol))
		port, ok := r.servedPort(field+".port", raw.Port)
		if !known || !ok {
			continue
		}
		p := cluster.ServicePort{Name: strings.Clone(raw.Name), Protocol: protocol, Port: port}
		same := func(o cluster.ServicePort) bool { return o.Protocol == protocol && o.Port == port }
		if slices.ContainsFunc(list, same) {
			r.fail(field, fmt.Sprintf("%s %d is in the list already: this entry is not served", protocol, port),
				"use another port, or remove the entry")
			continue
		}
		if raw.NodePort != 0 && !hasNodePorts(spec) {
			r.warn(field+".nodePort", "the type of the Service has no node ports: it is not served",
				"set type to NodePort or LoadBalancer, or remove nodePort")
		} else if raw.NodePort != 0 {
			p.NodePort, _ = r.servedPort(field+".nodePort", raw.NodePort)
		}
		list = append(list, p)
	}
	return list
}

func hasNodePorts(spec *corev1.ServiceSpec) bool {
	return spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer
}

// protocol reads a protocol. The API: "default is TCP".
func (r *reader) protocol(field, text string) (cluster.Protocol, bool) {
	if text == "" {
		return cluster.TCP, true
	}
	p, ok := cluster.ParseProtocol(text)
	if !ok {
		r.fail(field+".protocol", fmt.Sprintf("unknown protocol %.20q: the port is not served", text),
			"write TCP, UDP or SCTP")
	}
	return p, ok
}

// servedPort reads a port number.
func (r *reader) servedPort(field string, n int32) (uint16, bool) {
	if n < 1 || n > 65535 {
		r.fail(field, fmt.Sprintf("port %d is not in 1 to 65535: it is not served", n), "write a valid port number")
		return 0, false
	}
	return uint16(n), true
}

// affinity reads the timeout of session affinity. The API: "must be >0 && <=86400 … default value
// is 10800".
func (r *reader) affinity(spec *corev1.ServiceSpec) uint32 {
	switch spec.SessionAffinity {
	case "", corev1.ServiceAffinityNone:
		return 0
	case corev1.ServiceAffinityClientIP:
	default:
		r.fail("spec.sessionAffinity", fmt.Sprintf("unknown affinity %.20q: read as None", spec.SessionAffinity),
			"write ClientIP or None")
		return 0
	}
	c := spec.SessionAffinityConfig
	if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
		return defaultTimeout
	}
	n := *c.ClientIP.TimeoutSeconds
	if n < 1 || n > maxTimeout {
		r.fail("spec.sessionAffinityConfig.clientIP.timeoutSeconds", fmt.Sprintf("%d is not in 1 to %d: read as %d", n,
			maxTimeout, defaultTimeout), "write the seconds that a client comes back")
		return defaultTimeout
	}
	return uint32(n)
}

// local reads a traffic policy. An unknown one is Cluster: Local would lose traffic.
func (r *reader) local(field, text string) bool {
	switch text {
	case string(corev1.ServiceInternalTrafficPolicyLocal):
		return true
	case "", string(corev1.ServiceInternalTrafficPolicyCluster):
	default:
		r.fail(field, fmt.Sprintf("unknown policy %.20q: read as Cluster", text), "write Cluster or Local")
	}
	return false
}

// external reads what makes the Service reachable from outside; nil for nothing.
func (r *reader) external(s *corev1.Service, v *cluster.Service) *cluster.External {
	spec := &s.Spec
	if !hasNodePorts(spec) && len(spec.ExternalIPs) == 0 {
		return nil
	}
	e := &cluster.External{Local: r.local("spec.externalTrafficPolicy", string(spec.ExternalTrafficPolicy))}
	for i, text := range some(r, "spec.externalIPs", spec.ExternalIPs) {
		e.IPs = r.outside(fmt.Sprintf("spec.externalIPs[%d]", i), text, v, e.IPs)
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer {
		return e
	}
	ingress := some(r, "status.loadBalancer.ingress", s.Status.LoadBalancer.Ingress)
	for i := range ingress {
		in, field := &ingress[i], fmt.Sprintf("status.loadBalancer.ingress[%d]", i)
		if in.IP != "" && r.virtual(field+".ipMode", in.IPMode) {
			e.LoadBalancerIPs = r.outside(field+".ip", in.IP, v, e.LoadBalancerIPs)
		}
	}
	if e.Local && spec.HealthCheckNodePort != 0 {
		e.HealthPort, _ = r.servedPort("spec.healthCheckNodePort", spec.HealthCheckNodePort)
	}
	e.Restricted = len(spec.LoadBalancerSourceRanges) > 0
	e.SourceRanges = r.sourceRanges(spec.LoadBalancerSourceRanges)
	r.unlistedFamilies(e)
	return e
}

// outside appends an external address.
func (r *reader) outside(field, text string, v *cluster.Service, list []netip.Addr) []netip.Addr {
	a, ok := r.frontAddress(field, text)
	if !ok || slices.Contains(list, a) {
		return list
	}
	if !slices.ContainsFunc(v.ClusterIPs, func(c netip.Addr) bool { return c.Is4() == a.Is4() }) {
		r.warn(field, fmt.Sprintf("%s: the Service has no cluster address of this family and is not served there", a),
			"add the family to spec.ipFamilies, or remove the address")
		return list
	}
	return append(list, a)
}

// virtual reports whether packets arrive with the address of the load balancer. An unknown mode is
// read as Proxy: a packet that nobody translates is at least not taken from its owner.
func (r *reader) virtual(field string, mode *corev1.LoadBalancerIPMode) bool {
	switch {
	case mode == nil, *mode == corev1.LoadBalancerIPModeVIP:
		return true
	case *mode != corev1.LoadBalancerIPModeProxy:
		r.fail(field, fmt.Sprintf("unknown mode %.20q: the Service is not served at this address", *mode),
			"write VIP or Proxy")
	}
	return false
}

// sourceRanges reads spec.loadBalancerSourceRanges. A range that cannot be read admits nobody.
func (r *reader) sourceRanges(texts []string) []netip.Prefix {
	var list []netip.Prefix
	for i, text := range some(r, "spec.loadBalancerSourceRanges", texts) {
		field := fmt.Sprintf("spec.loadBalancerSourceRanges[%d]", i)
		text = strings.TrimSpace(text) // the API allows white space here
		p, usual, err := parseCIDR(text)
		if err != nil || p.Addr().Zone() != "" {
			r.fail(field, fmt.Sprintf("%.60q is no CIDR: it admits no client", text),
				"write it as 192.0.2.0/24 or 2001:db8::/64")
			continue
		}
		if !usual || p != p.Masked() {
			r.warn(field, fmt.Sprintf("%q is read as %s, as the API server does", text, p.Masked()),
				"write "+p.Masked().String())
		}
		if p = p.Masked(); !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// unlistedFamilies warns of addresses of the load balancer that nobody may use.
func (r *reader) unlistedFamilies(e *cluster.External) {
	for _, a := range e.LoadBalancerIPs {
		of := func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() }
		if e.Restricted && !slices.ContainsFunc(e.SourceRanges, of) {
			r.warn("spec.loadBalancerSourceRanges", fmt.Sprintf("no range has the family of %s: no client may use "+
				"that address", a), fmt.Sprintf("add ranges of the family, or %s/0 for all clients", unspecified(a)))
		}
	}
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

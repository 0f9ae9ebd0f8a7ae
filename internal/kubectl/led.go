// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
)

// led is where a node sends the first packet of a connection to a Service.
type led struct {
	by   *cluster.Node
	from explain.End
	to   explain.End
	port uint16
	// masqueraded is true if the node's address replaces the client's.
	masqueraded bool
}

// call is a connection to a Service that a node resolves.
type call struct {
	from explain.End
	by   *cluster.Node
	to   netip.AddrPort
	// front names the Service and its protocol.
	front complete.Front
	// atNode says that it is to the node port.
	atNode bool
}

// lead returns the endpoints to which a node may send a call, as the program says that its service proxy loads.
// kube-proxy does the same. Without an endpoint the fate says why.
func (sc *scene) lead(ctx context.Context, c call) (list []led, fate program.Fate, err error) {
	set, ours := sc.proxyOf(c)
	about := sc.about(c)
	if !ours && !c.atNode {
		takeAny(c.to.Addr(), &set, about)
	}
	x := service.NewIndex(set)
	if err := x.Apply(ctx, everything(about)); err != nil {
		return nil, 0, err
	}
	p := x.Model().Program(inet.FamilyOf(c.to.Addr()))
	itself := c.from.Pod == (cluster.Key{}) && c.from.Node == c.by.Name
	packet := program.Packet{Protocol: inet.Protocol(c.front.Protocol), Src: c.from.Addr, Dst: c.to.Addr(),
		DstPort: c.to.Port(), FromNode: itself || slices.Contains(c.by.Addrs, c.from.Addr)}
	r, fate := p.At(program.Front{Addr: packet.Dst, Protocol: packet.Protocol, Port: packet.DstPort})
	if fate == program.Forwarded {
		if owner, _, ok := x.Owner(r.Front, p.Family); !ok || owner.String() != c.front.Name {
			return nil, program.NotOurs, nil // an older Service has it
		}
	}
	for i, n := 0, 1; i < n; i++ {
		o, _ := program.Eval(p, packet, program.Memory{}, func(count int) int { n = count; return i })
		if fate = o.Fate; fate != program.Forwarded {
			return nil, fate, nil
		}
		to := netip.AddrPortFrom(o.Backend.Addr, o.Backend.Port)
		list = append(list, led{by: c.by, from: c.from, to: sc.backend(to), port: to.Port(),
			masqueraded: o.Masqueraded})
	}
	return list, program.Forwarded, nil
}

// inOrder sorts endpoints by pod and address: their numbers are of no order that anybody knows.
func inOrder(list []led) {
	slices.SortFunc(list, func(a, b led) int {
		if a.to.Pod != b.to.Pod {
			return strings.Compare(a.to.Pod.String(), b.to.Pod.String())
		}
		return netip.AddrPortFrom(a.to.Addr, a.port).Compare(netip.AddrPortFrom(b.to.Addr, b.port))
	})
}

// takeAny lets a Service have an external address that a node or a pod has, as kube-proxy does.
func takeAny(a netip.Addr, set *service.Settings, s *cluster.ServiceSnapshot) {
	others := func(list []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(slices.Clone(list), func(x netip.Addr) bool { return x == a })
	}
	set.OwnAddresses, set.NodePortAddresses, s.Pods = others(set.OwnAddresses), others(set.NodePortAddresses), nil
	for i, n := range s.Nodes {
		one := *n
		one.Addrs = others(n.Addrs)
		s.Nodes[i] = &one
	}
}

// proxyOf returns the settings of the service proxy of the node that resolves a call, and whether it is podwall's.
// Another serves every external address, and knows the pods of its node without their range.
func (sc *scene) proxyOf(c call) (set service.Settings, ours bool) {
	if sc.serving != nil {
		if set, runs := sc.serving(c.by); runs {
			return set, true
		}
	}
	set = service.Settings{Node: c.by.Name}.On(c.by, c.by.Addrs, false)
	inside := func(p netip.Prefix) bool { return p.Contains(c.from.Addr) }
	if p := sc.owner(c.from); p != nil {
		itself := netip.PrefixFrom(c.from.Addr, c.from.Addr.BitLen())
		if p.Node == c.by.Name && !slices.ContainsFunc(set.NodePods, inside) {
			set.NodePods = append(slices.Clone(set.NodePods), itself)
		}
		if !slices.ContainsFunc(set.ClusterPods, inside) {
			set.ClusterPods = append(slices.Clone(set.ClusterPods), itself)
		}
	}
	return set, false
}

// about returns the part of the cluster that decides a call: a Service may want what another has.
func (sc *scene) about(c call) *cluster.ServiceSnapshot {
	a, s := c.to.Addr(), &cluster.ServiceSnapshot{}
	at := func(list []netip.Addr) bool { return slices.Contains(list, a) }
	wanted := map[cluster.Key]bool{}
	for _, v := range sc.called.Services {
		outside := v.External != nil && (at(v.External.IPs) || at(v.External.LoadBalancerIPs))
		nodePort := func(p cluster.ServicePort) bool { return p.NodePort == c.to.Port() }
		if outside || at(v.ClusterIPs) || slices.ContainsFunc(v.Ports, nodePort) {
			s.Services, wanted[v.Key] = append(s.Services, v), true
		}
	}
	for _, v := range sc.called.Slices {
		if wanted[cluster.Key{Namespace: v.Key.Namespace, Name: v.Service}] {
			s.Slices = append(s.Slices, v)
		}
	}
	for _, v := range sc.called.Nodes {
		if v.Name == c.by.Name || at(v.Addrs) {
			s.Nodes = append(s.Nodes, v)
		}
	}
	for _, v := range sc.called.Pods {
		if at(v.IPs) {
			s.Pods = append(s.Pods, v)
		}
	}
	return s
}

// resolver returns the node of a name, also if nothing else is known of it.
func (sc *scene) resolver(name string) *cluster.Node {
	if i := slices.IndexFunc(sc.called.Nodes, func(n *cluster.Node) bool { return n.Name == name }); i >= 0 {
		return sc.called.Nodes[i]
	}
	return &cluster.Node{Name: name}
}

// hosting returns the nodes that have endpoints of a Service; one at least.
func (sc *scene) hosting(f complete.Front) (list []*cluster.Node) {
	seen := map[string]bool{}
	for _, s := range sc.called.Slices {
		if s.Key.Namespace+"/"+s.Service != f.Name {
			continue
		}
		for _, e := range s.Endpoints {
			if name := sc.nodeOf(sc.backend(netip.AddrPortFrom(e.Addr, 0))); name != "" && !seen[name] {
				seen[name] = true
				list = append(list, sc.resolver(name))
			}
		}
	}
	slices.SortFunc(list, func(a, b *cluster.Node) int { return strings.Compare(a.Name, b.Name) })
	if len(list) == 0 {
		return append(slices.Clone(sc.called.Nodes), &cluster.Node{})[:1]
	}
	return list
}

// calls returns the calls of a source to a Service. The node of the client resolves it; for a client outside, and for
// the kubelet, it is each node that has endpoints, and elsewhere is true.
func (sc *scene) calls(src target, to netip.AddrPort, f complete.Front) (list []call, elsewhere bool) {
	v6 := to.Addr().Is6()
	if !src.prober {
		from, ok := src.end(v6)
		if !ok {
			return nil, false
		}
		if name := sc.nodeOf(from); name != "" {
			return []call{{from: from, by: sc.resolver(name), to: to, front: f}}, false
		}
		for _, n := range sc.hosting(f) {
			list = append(list, call{from: from, by: n, to: to, front: f})
		}
		return list, true
	}
	for _, n := range sc.hosting(f) {
		if a := ofFamily(n.Addrs, v6); a.IsValid() {
			list = append(list, call{from: explain.End{Node: n.Name, Addr: a}, by: n, to: to, front: f})
		}
	}
	return list, true
}

// toService returns a path to every backend: policies are judged after the Service was
// resolved, with the client as the source.
func (sc *scene) toService(ctx context.Context, src, dst target, fronts []complete.Front) ([]path, error) {
	var list []path
	why := error(nil)
	for _, f := range fronts {
		to := f.Front
		if len(dst.ends) > 0 {
			to = netip.AddrPortFrom(dst.ends[0].Addr, f.Front.Port())
		}
		if !sc.asks(to.Addr().Is6()) {
			continue
		}
		calls, elsewhere := sc.calls(src, to, f)
		var all, own []led
		for _, c := range calls {
			some, fate, err := sc.lead(ctx, c)
			if err != nil {
				return nil, err
			}
			if why == nil {
				why = unserved(src, c, fate)
			}
			all = append(all, some...)
			for _, l := range some {
				if on := sc.nodeOf(l.to); on == c.by.Name || on == "" && c.by == calls[0].by {
					own = append(own, l)
				}
			}
		}
		if elsewhere && len(own) > 0 {
			all = own
		}
		inOrder(all)
		for _, l := range all {
			way := sc.onward(via(f)+sc.fromOutside(l.from, dst, f), l, f)
			way.entry, way.entryName = to, "Service "+f.Name
			list = append(list, way)
		}
	}
	switch {
	case len(list) > 0:
		return list, nil
	case why != nil:
		return nil, why
	}
	return nil, fmt.Errorf("%s has no address of the families of Service %s", src.name, fronts[0].Name)
}

// onward is the way of a packet that a node sends on. The policies of that node judge it before the node's address
// replaces the client's, those of another node after it.
func (sc *scene) onward(via string, l led, f complete.Front) path {
	way := straight(via, l.from, l.to, inet.Protocol(f.Protocol), l.port)
	own := ofFamily(l.by.Addrs, l.to.Addr.Is6())
	if l.masqueraded && own.IsValid() && own != l.from.Addr && sc.nodeOf(l.to) != l.by.Name {
		way.ingress.Src = explain.End{Node: l.by.Name, Addr: own}
		way.via += ", with the node's own address as the source,"
	}
	return way
}

// errNotServed is that a packet to an address is none to a Service that wants the address.
var errNotServed = errors.New("is not served")

// unserved says why a call reaches no endpoint; nil if it does.
func unserved(src target, c call, fate program.Fate) error {
	f := c.front
	switch {
	case fate == program.Rejected:
		return fmt.Errorf("%s has no endpoint: connections to it are refused, whatever policies say", via(f))
	case fate == program.Dropped && f.InternalLocalOnly && c.to.Addr() == f.Front.Addr():
		return fmt.Errorf("%s has no endpoint on the node of %s (internalTrafficPolicy: Local): its packets are "+
			"dropped", via(f), src.name)
	case fate == program.Dropped:
		return fmt.Errorf("%s drops the packets of %s at %s: loadBalancerSourceRanges do not admit it, or the node "+
			"has no endpoint", via(f), src.name, c.to.Addr())
	case fate == program.NotOurs:
		return fmt.Errorf("%s %w at %s: another Service, a pod or a node has it, or it is not in "+
			"the ranges that are allowed; see explain svc/%s", via(f), errNotServed, c.to.Addr(), f.Name)
	}
	return nil
}

// toNodePort returns a path to every backend of a node port, which the node resolves.
func (sc *scene) toNodePort(ctx context.Context, src, dst target, fronts []complete.Front) ([]path, error) {
	var list []path
	by := sc.resolver(dst.node.Name)
	for _, f := range fronts {
		v6 := f.Front.Addr().Is6()
		own, has := dst.end(v6)
		from, ok := src.end(v6)
		if src.prober { // the kubelet of the node that is asked
			from, ok = own, has
		}
		if !has || !ok || !sc.asks(v6) {
			continue
		}
		to := netip.AddrPortFrom(own.Addr, f.NodePort)
		some, _, err := sc.lead(ctx, call{from: from, by: by, to: to, front: f, atNode: true})
		if err != nil {
			return nil, err
		}
		inOrder(some)
		for _, l := range some {
			way := sc.onward(fmt.Sprintf("port %d of node %s, %s", f.NodePort, dst.node.Name, via(f)), l, f)
			way.entry, way.entryName = to, "node/"+dst.node.Name
			if sc.nodeOf(from) != dst.node.Name { // another node lets it out
				way.egress.Dst, way.egress.Port = own, f.NodePort
			}
			list = append(list, way)
		}
	}
	if len(list) == 0 {
		return nil,
			fmt.Errorf("port %d of %s leads nowhere: no pod of Service %s is on it (externalTrafficPolicy: Local), "+
				"or none has its family",
				fronts[0].NodePort, dst.name, fronts[0].Name)
	}
	return list, nil
}

// SPDX-License-Identifier: Apache-2.0

// Package explain says why a flow is allowed or denied, and what would change that.
//
// Verdicts and deciding rules come from the compiled programs of the two nodes, the
// same that the agents load into the kernel: compile keeps which rule of which policy
// each compiled rule comes from. For a denied flow the package describes the nearest
// rule in the words of the API object, field by field, and proposes one change.
//
// It is pure: a snapshot in, explanations out.
package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Cluster answers questions about one state of a cluster. It compiles the program of a
// node at the first question about it. Its methods must not be called concurrently.
type Cluster struct {
	pods       map[cluster.Key]*cluster.Pod
	owners     map[netip.Addr]*cluster.Pod
	claimants  map[netip.Addr][]cluster.Key // that are not being deleted
	namespaces map[string]*cluster.Namespace
	policies   map[string][]*cluster.Policy // by namespace
	snapshot   *cluster.Snapshot
	nodes      map[string]*node
	reported   map[cluster.Key][]cluster.Diagnostic // by policy, see Report
}

// node is what the agent of a node enforces.
type node struct {
	program *program.Program
	judge   *program.Judge
	// findings are about policies that allow nothing, or not all, for lack of room.
	findings []cluster.Diagnostic
}

// New returns a Cluster for a snapshot, which must not change afterwards.
func New(snap *cluster.Snapshot) *Cluster {
	c := &Cluster{snapshot: snap, pods: map[cluster.Key]*cluster.Pod{}, owners: map[netip.Addr]*cluster.Pod{},
		claimants:  map[netip.Addr][]cluster.Key{},
		namespaces: map[string]*cluster.Namespace{}, policies: map[string][]*cluster.Policy{},
		nodes:    map[string]*node{},
		reported: map[cluster.Key][]cluster.Diagnostic{}}
	for _, n := range snap.Namespaces {
		c.namespaces[n.Name] = n
	}
	for _, p := range snap.Policies {
		c.policies[p.Key.Namespace] = append(c.policies[p.Key.Namespace], p)
	}
	for _, p := range snap.Pods {
		c.pods[p.Key] = p
		if !p.Networked() {
			continue
		}
		for _, a := range p.IPs { // a pod that is being deleted gives way to its address's next owner
			if o := c.owners[a]; o == nil || o.Terminating && !p.Terminating {
				c.owners[a] = p
			}
			if !p.Terminating {
				c.claimants[a] = append(c.claimants[a], p.Key)
			}
		}
	}
	return c
}

// Pod returns the pod of that name, or nil.
func (c *Cluster) Pod(k cluster.Key) *cluster.Pod { return c.pods[k] }

// Owner returns the pod that has the address, of those with a network of their own, or nil.
func (c *Cluster) Owner(a netip.Addr) *cluster.Pod { return c.owners[a] }

// End is one end of a flow. Exactly one of Pod and Node is set, or neither for an
// address alone.
type End struct {
	Pod cluster.Key
	// Node is the name of a node whose own address Addr is; Addr is required then.
	Node string
	// Addr may be left out for a pod: the first of the other end's family is taken.
	Addr netip.Addr
}

// EndAt is an address of a pod, or of a host outside of the cluster if p is nil.
func EndAt(p *cluster.Pod, a netip.Addr) End {
	if p == nil {
		return End{Addr: a}
	}
	return End{Pod: p.Key, Addr: a}
}

// Flow is the first packet of a connection, after Services were resolved and before
// its source is masqueraded.
type Flow struct {
	Src, Dst End
	Protocol inet.Protocol
	Port     uint16 // 0 for protocols without ports
}

// The reasons why a question has no answer. The error text names the end.
var (
	// ErrUnknownPod is about a pod that is not in the cluster.
	ErrUnknownPod = errors.New("no such pod")
	// ErrNoAddress is about an end without an address of the other end's family.
	ErrNoAddress = errors.New("no address")
)

// Explain says whether the flow is allowed, and why.
func (c *Cluster) Explain(f Flow) (*Explanation, error) {
	src, dst, err := c.parties(f)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Flow: f, Src: src.addr, Dst: dst.addr}
	egress := c.trace(src.node(), f, src, dst)
	ingress := egress
	if dst.node() != src.node() {
		ingress = c.trace(dst.node(), f, src, dst)
	}
	if egress.Self {
		e.Allowed, e.Egress.Cause, e.Ingress.Cause = true, Self, Self
		return e, nil
	}
	e.Egress = c.side(program.Egress, egress.Egress, question{f: f, subject: src, peer: dst})
	e.Ingress = c.side(program.Ingress, ingress.Ingress, question{f: f, subject: dst, peer: src})
	e.Allowed = e.Egress.Allowed() && e.Ingress.Allowed()
	return e, nil
}

// party is an end that was found.
type party struct {
	pod  *cluster.Pod // with a network of its own
	host string       // the node whose own address this is
	addr netip.Addr   // zero: to be chosen of addrs, of the other end's family
	// addrs are the addresses that the end has, if it was named without one.
	addrs []netip.Addr
}

// node returns the node that judges this end; "" for an address outside.
func (p party) node() string {
	if p.pod != nil {
		return p.pod.Node
	}
	return p.host
}

func (c *Cluster) parties(f Flow) (src, dst party, err error) {
	if src, err = c.find(f.Src); err != nil {
		return src, dst, err
	}
	if dst, err = c.find(f.Dst); err != nil {
		return src, dst, err
	}
	src.addr, dst.addr = addresses(src, dst)
	if !src.addr.IsValid() || !dst.addr.IsValid() || src.addr.Is4() != dst.addr.Is4() {
		return src, dst, fmt.Errorf("%w: %s and %s have no address of one family", ErrNoAddress, f.Src, f.Dst)
	}
	return src, dst, nil
}

func (c *Cluster) find(e End) (party, error) {
	addr := e.Addr.Unmap().WithZone("")
	if e.Pod == (cluster.Key{}) {
		if !addr.IsValid() {
			return party{}, fmt.Errorf("%w: %s", ErrNoAddress, e)
		}
		if e.Node != "" {
			return party{host: e.Node, addr: addr}, nil
		}
		return party{pod: c.owners[addr], addr: addr}, nil
	}
	pod := c.pods[e.Pod]
	switch {
	case pod == nil:
		return party{}, fmt.Errorf("%w: %s", ErrUnknownPod, e.Pod)
	case pod.Finished || len(pod.IPs) == 0:
		return party{}, fmt.Errorf("%w: pod %s is finished or has none yet", ErrNoAddress, e.Pod)
	case addr.IsValid() && !slices.Contains(pod.IPs, addr):
		return party{}, fmt.Errorf("%w: pod %s does not have %s", ErrNoAddress, e.Pod, addr)
	case pod.HostNetwork: // its traffic is the node's
		return party{host: pod.Node, addr: addr, addrs: pod.IPs}, nil
	}
	return party{pod: pod, addr: addr, addrs: pod.IPs}, nil
}

// addresses completes the addresses of ends that were named without one.
func addresses(src, dst party) (s, d netip.Addr) {
	s, d = src.addr, dst.addr
	switch {
	case s.IsValid() && d.IsValid():
	case s.IsValid():
		d = ofFamily(dst.addrs, s)
	case d.IsValid():
		s = ofFamily(src.addrs, d)
	default:
		for _, s := range src.addrs {
			if d := ofFamily(dst.addrs, s); d.IsValid() {
				return s, d
			}
		}
	}
	return s, d
}

func ofFamily(list []netip.Addr, like netip.Addr) netip.Addr {
	for _, a := range list {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// trace asks the program of a node; a node that is not known judges nothing.
func (c *Cluster) trace(name string, f Flow, src, dst party) program.Trace {
	if name == "" {
		return program.Trace{Verdict: program.Accept}
	}
	return program.Explain(c.node(name).program, seenBy(name, f, src, dst))
}

// seenBy is the flow as a node sees it.
func seenBy(name string, f Flow, src, dst party) program.Flow {
	return program.Flow{
		Protocol: f.Protocol, Src: src.addr, Dst: dst.addr, DstPort: f.Port,
		FromNode: src.host == name, ToNode: dst.host == name,
		SrcElsewhere: src.elsewhere(name), DstElsewhere: dst.elsewhere(name),
	}
}

// elsewhere reports whether the end is behind an interface of the node that leads to no pod:
// another node, or an address that no pod has. It matters for link-local addresses, as that
// of a metadata service.
func (p party) elsewhere(node string) bool { return p.pod == nil && p.host != node }

func (c *Cluster) node(name string) *node {
	if c.nodes[name] == nil {
		m := policy.Resolve(c.snapshot, name)
		layout := compile.NewLayout(m.Layout, compile.Options{})
		p := layout.Program(m.Sets)
		c.nodes[name] = &node{program: p, judge: program.NewJudge(p), findings: append(m.Diagnostics,
			layout.Diagnostics...)}
	}
	return c.nodes[name]
}

// String names an end as the command line does.
func (e End) String() string {
	switch {
	case e.Pod != (cluster.Key{}):
		return plain(e.Pod.String())
	case e.Node != "":
		return plain("node/" + e.Node)
	}
	return e.Addr.String()
}

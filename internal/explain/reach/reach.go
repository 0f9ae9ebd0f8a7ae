// SPDX-License-Identifier: Apache-2.0

// Package reach says which groups of pods reach which, for a graph of a cluster of any size.
// It gives the counts of package matrix, at a cost that grows with the number of different
// pods and not with the number of pods: addresses that no policy tells apart are a class, and
// two classes are judged once for each port.
//
// Verdicts come from the compiled programs of the nodes, by explain.Cluster. It is pure: a
// snapshot in, values out.
package reach

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/explain/matrix"
)

// Options say what a map is of.
type Options struct {
	// Workload names the object that made a pod, without the namespace. A pod that is not in
	// it stands for itself.
	Workload map[cluster.Key]string
	// Hosts are addresses outside of the cluster.
	Hosts []netip.Addr
	// Skip says which addresses are left out; nil leaves out none.
	Skip func(netip.Addr) bool
}

// Map answers which workloads and namespaces reach which. Its methods must not be called
// concurrently, nor together with those of its answers.
type Map struct {
	answers *explain.Cluster
	classes []class
	units   []*Unit
	leftOut int
	known   []*relation // of ports, the one that was asked about last at the end
}

// Unit is a workload or a host: the smallest group.
type Unit struct {
	// Name is namespace/name of a workload, or an address.
	Name string
	// Namespace is empty for a host.
	Namespace string
	Pods      []cluster.Key
	// Ingress and Egress are how many of the pods are isolated.
	Ingress, Egress int

	// addresses has the number of addresses by class; same that of pairs of addresses of one pod.
	addresses map[int]int
	same      map[[2]int]int
	// some has one or two pods of each class.
	some map[int][]cluster.Key
}

// New returns the map of a snapshot, of which the answers must be.
func New(snap *cluster.Snapshot, answers *explain.Cluster, o Options) *Map {
	m := &Map{answers: answers}
	c := newClassifier(snap, answers)
	index := map[string]*Unit{}
	isolated := map[string][2]bool{}
	pods := slices.SortedFunc(slices.Values(snap.Pods), func(a, b *cluster.Pod) int { return a.Key.Compare(b.Key) })
	for _, p := range pods {
		if !p.Networked() || p.Node == "" {
			m.leftOut++
			continue
		}
		name := cluster.Key{Namespace: p.Key.Namespace, Name: cmp.Or(o.Workload[p.Key], p.Key.Name)}.String()
		u := index[name]
		if u == nil {
			u = &Unit{Name: name, Namespace: p.Key.Namespace, addresses: map[int]int{}, same: map[[2]int]int{},
				some: map[int][]cluster.Key{}}
			index[name] = u
			m.units = append(m.units, u)
		}
		u.add(c, p, o.asked(p.IPs), isolated)
	}
	slices.SortStableFunc(m.units, func(a, b *Unit) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, a := range o.asked(o.Hosts) {
		m.units = append(m.units, &Unit{Name: a.String(), addresses: map[int]int{c.host(a): 1}})
	}
	m.classes = c.settle()
	return m
}

// asked are the addresses that are not left out.
func (o Options) asked(list []netip.Addr) []netip.Addr {
	if o.Skip == nil {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), o.Skip)
}

// add counts a pod at some of its addresses. isolated remembers what pods with the same labels are.
func (u *Unit) add(c *classifier, p *cluster.Pod, at []netip.Addr, isolated map[string][2]bool) {
	kind := c.kind(p)
	is, known := isolated[kind]
	if !known {
		is[0], is[1] = c.answers.Isolated(p)
		isolated[kind] = is
	}
	if is[0] {
		u.Ingress++
	}
	if is[1] {
		u.Egress++
	}
	u.Pods = append(u.Pods, p.Key)
	var own []int
	for _, a := range at {
		class := c.of(p, kind, a)
		own = append(own, class)
		u.addresses[class]++
		if pods := u.some[class]; len(pods) < 2 && !slices.Contains(pods, p.Key) {
			u.some[class] = append(pods, p.Key)
		}
	}
	for i, x := range own {
		for j, y := range own {
			if at[i].Is4() == at[j].Is4() {
				u.same[[2]int{x, y}]++
			}
		}
	}
}

// Units returns all workloads by namespace and name, hosts last.
func (m *Map) Units() []*Unit { return m.units }

// LeftOut is the number of pods to which no policy applies: finished, without an address, or on
// the network of their node.
func (m *Map) LeftOut() int { return m.leftOut }

// Classes is the number of classes of addresses, from which the cost follows.
func (m *Map) Classes() int { return len(m.classes) }

// Group are workloads, or hosts, that are counted together.
type Group []*Unit

// weights sums up the addresses of a group.
func (g Group) weights() (addresses map[int]int, same map[[2]int]int) {
	if len(g) == 1 {
		return g[0].addresses, g[0].same
	}
	addresses, same = map[int]int{}, map[[2]int]int{}
	for _, u := range g {
		for class, n := range u.addresses {
			addresses[class] += n
		}
		for pair, n := range u.same {
			same[pair] += n
		}
	}
	return addresses, same
}

// Cells returns the answer about each source and each destination, in their order. A group is
// among both, or shares no workload with the others. It ends early, with the error of ctx, when
// ctx ends.
func (m *Map) Cells(ctx context.Context, port matrix.Port, sources, destinations []Group) ([][]matrix.Cell, error) {
	cells := make([][]matrix.Cell, len(sources))
	for s := range cells {
		cells[s] = make([]matrix.Cell, len(destinations))
	}
	err := m.Each(ctx, port, sources, destinations, func(s, d int, c matrix.Cell) { cells[s][d] = c })
	if err != nil {
		return nil, err
	}
	return cells, nil
}

// Each calls answer with what Cells returns, source by source, and keeps nothing of it.
func (m *Map) Each(ctx context.Context, port matrix.Port, sources, destinations []Group,
	answer func(source, destination int, c matrix.Cell)) error {
	r := m.relation(port)
	type sum struct {
		addresses map[int]int
		same      map[[2]int]int
	}
	sums := make([]sum, len(destinations))
	for i, g := range destinations {
		sums[i].addresses, sums[i].same = g.weights()
	}
	for s, src := range sources {
		from, _ := src.weights()
		for d, dst := range destinations {
			var own map[[2]int]int
			if len(src) > 0 && len(dst) > 0 && src[0] == dst[0] {
				own = sums[d].same
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			var c matrix.Cell
			if err := m.count(&c, r, from, sums[d].addresses, own); err != nil {
				return err
			}
			answer(s, d, c)
		}
	}
	return nil
}

// count adds the flows between classes of a source and of a destination to a cell; own are those
// of pods to themselves, which are no flows.
func (m *Map) count(c *matrix.Cell, r *relation, from, to map[int]int, own map[[2]int]int) error {
	for x, sources := range from {
		for y, destinations := range to {
			flows := sources*destinations - own[[2]int{x, y}]
			if flows == 0 || m.classes[x].v6 != m.classes[y].v6 || m.classes[x].host && m.classes[y].host {
				continue
			}
			v, err := m.verdict(r, x, y)
			if err != nil {
				return err
			}
			n := &c.IPv4
			if m.classes[x].v6 {
				n = &c.IPv6
			}
			n.Flows += flows
			if v != denied {
				n.Allowed += flows
			}
			if v == audited {
				n.Audited += flows
			}
		}
	}
	return nil
}

// The verdicts about two classes. The zero value is that of a pair that was not asked about.
const (
	unasked = iota
	denied
	allowed
	audited // allowed only because policies are in audit mode
)

// relation are the verdicts of one port.
type relation struct {
	port     matrix.Port
	verdicts []byte // by source and destination
}

// maxKnown bounds the bytes of verdicts that are kept of several ports. Those of the port that was
// asked about last are kept however many they are: a byte for each pair of classes.
const maxKnown = 64 << 20

// relation returns the verdicts of a port; those that were not used for longest are dropped.
func (m *Map) relation(p matrix.Port) *relation {
	size := len(m.classes) * len(m.classes)
	i := slices.IndexFunc(m.known, func(r *relation) bool { return r.port == p })
	r := &relation{port: p}
	if i >= 0 {
		r = m.known[i]
		m.known = slices.Delete(m.known, i, i+1)
	} else {
		r.verdicts = make([]byte, size)
	}
	m.known = append(m.known, r)
	for len(m.known) > 1 && len(m.known)*size > maxKnown {
		m.known = slices.Delete(m.known, 0, 1)
	}
	return r
}

func (m *Map) verdict(r *relation, x, y int) (byte, error) {
	v := &r.verdicts[x*len(m.classes)+y]
	if *v != unasked {
		return *v, nil
	}
	src, dst := m.classes[x].members[0], m.classes[y].members[0]
	if src.pod != nil && dst.pod != nil && src.pod == dst.pod { // a flow is between two pods
		switch {
		case len(m.classes[y].members) > 1:
			dst = m.classes[y].members[1]
		case len(m.classes[x].members) > 1:
			src = m.classes[x].members[1]
		}
	}
	f := explain.Flow{Src: src.end(), Dst: dst.end(), Protocol: r.port.Protocol, Port: r.port.Number}
	ok, err := m.answers.Allowed(f)
	only := false
	if ok && err == nil {
		only, err = m.answers.Audited(f)
	}
	switch {
	case err != nil:
		return denied, fmt.Errorf("judging %s to %s %s: %w", src.addr, dst.addr, r.port, err)
	case only:
		*v = audited
	case ok:
		*v = allowed
	default:
		*v = denied
	}
	return *v, nil
}

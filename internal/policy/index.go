// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
)

// Index keeps the model of one node up to date. The cost of a change follows
// the change: a remote pod touches the sets it belongs to, a local pod or a
// policy makes the layout be computed again (which grows with this node, not
// with the cluster). It is owned by one goroutine.
type Index struct {
	node       string
	namespaces map[string]*cluster.Namespace
	pods       map[string][]*cluster.Pod // by namespace, in no order
	addrs      byAddr                    // networked pods
	local      map[*cluster.Pod]struct{} // networked pods of this node
	policies   map[string]map[cluster.Key]*cluster.Policy

	layout *Layout // nil when it has to be computed again
	sets   map[SetKey]*set
	// The sets to ask when a pod changes: those of its own namespace, and those
	// of several namespaces.
	bound    map[string]map[SetKey]*set
	selected map[SetKey]*set
}

// set is a set in use and its members.
type set struct {
	key     SetKey
	spec    *SetSpec
	members Members
}

// NewIndex returns the index of an empty cluster.
func NewIndex(node string) *Index {
	return &Index{
		node:       node,
		namespaces: map[string]*cluster.Namespace{},
		pods:       map[string][]*cluster.Pod{},
		addrs:      newByAddr(),
		local:      map[*cluster.Pod]struct{}{},
		policies:   map[string]map[cluster.Key]*cluster.Policy{},
		sets:       map[SetKey]*set{},
		bound:      map[string]map[SetKey]*set{},
		selected:   map[SetKey]*set{},
	}
}

// Apply takes in what changed.
func (x *Index) Apply(d cluster.Delta) {
	for _, c := range d.Namespaces {
		x.applyNamespace(c)
	}
	for _, c := range d.Pods {
		x.applyPod(c)
	}
	for _, c := range d.Policies {
		x.applyPolicy(c)
	}
}

// Model returns the current model.
func (x *Index) Model() *Model {
	if x.layout == nil {
		x.layout = newLayout(slices.Collect(maps.Keys(x.local)), func(namespace string) []*cluster.Policy {
			return slices.Collect(maps.Values(x.policies[namespace]))
		})
		x.trackSets()
	}
	m := &Model{Layout: x.layout, Sets: make(map[SetKey]Members, len(x.sets))}
	for key, s := range x.sets {
		m.Sets[key] = s.members
	}
	return m
}

// applyNamespace touches the pods of the namespace if a selector of namespaces
// sees it differently now; that is rare, and costs what they are.
func (x *Index) applyNamespace(c cluster.Change[cluster.Namespace]) {
	name := nameOf(c)
	sets := slices.DeleteFunc(slices.Collect(maps.Values(x.selected)), func(s *set) bool {
		return s.spec.Namespaces == nil || inNamespace(s.spec, c.Old) == inNamespace(s.spec, c.New)
	})
	var touched []netip.Addr
	if len(sets) > 0 {
		for _, p := range x.pods[name] {
			if p.Networked() {
				touched = append(touched, p.IPs...)
			}
		}
	}
	x.change(touched, sets, func() { put(x.namespaces, name, c.New) })
}

func inNamespace(spec *SetSpec, n *cluster.Namespace) bool {
	return n != nil && spec.Namespaces.Matches(n.Labels)
}

func (x *Index) applyPod(c cluster.Change[cluster.Pod]) {
	var touched []netip.Addr
	var namespace string // the same for both
	for _, p := range []*cluster.Pod{c.Old, c.New} {
		if p == nil {
			continue
		}
		namespace = p.Key.Namespace
		if p.Networked() {
			touched = append(touched, p.IPs...)
		}
		if p.Networked() && p.Node == x.node {
			x.layout = nil
		}
	}
	x.change(touched, x.setsOf(namespace, touched), func() {
		x.forget(c.Old)
		x.remember(c.New)
	})
}

func (x *Index) applyPolicy(c cluster.Change[cluster.Policy]) {
	p := c.New
	if p == nil {
		p = c.Old
	}
	of := x.policies[p.Key.Namespace]
	if of == nil {
		of = map[cluster.Key]*cluster.Policy{}
		x.policies[p.Key.Namespace] = of
	}
	put(of, p.Key, c.New)
	if len(of) == 0 {
		delete(x.policies, p.Key.Namespace)
	}
	if x.selectsHere(c.Old) || x.selectsHere(c.New) {
		x.layout = nil
	}
}

// selectsHere reports whether a policy selects a pod of this node. Most select
// none, and change nothing.
func (x *Index) selectsHere(p *cluster.Policy) bool {
	if p == nil {
		return false
	}
	for pod := range x.local {
		if pod.Key.Namespace == p.Key.Namespace && p.Subject.Matches(pod.Labels) {
			return true
		}
	}
	return false
}

// setsOf returns the sets that a pod of the namespace can be in, and those of
// other pods with its addresses: who owns an address decides for all of them.
func (x *Index) setsOf(namespace string, addrs []netip.Addr) []*set {
	namespaces := map[string]bool{namespace: true}
	for _, a := range addrs {
		for _, p := range x.addrs.of(a) {
			namespaces[p.Key.Namespace] = true
		}
	}
	sets := slices.Collect(maps.Values(x.selected))
	for ns := range namespaces {
		sets = slices.AppendSeq(sets, maps.Values(x.bound[ns]))
	}
	return sets
}

// change runs mutate and brings the members of the given sets up to date, as
// far as the touched addresses are concerned. What an address contributes is
// asked before and after, of all pods that have it, so that an address that
// two pods share stays a member until both have left.
func (x *Index) change(touched []netip.Addr, sets []*set, mutate func()) {
	slices.SortFunc(touched, netip.Addr.Compare)
	touched = slices.Compact(touched)
	if len(touched) == 0 || len(sets) == 0 {
		mutate()
		return
	}
	before := x.contributions(touched, sets)
	mutate()
	for i, after := range x.contributions(touched, sets) {
		sets[i].members.replace(before[i], after)
	}
}

// contributions returns for each set the elements that come from the addresses,
// which are sorted; so are the elements.
func (x *Index) contributions(addrs []netip.Addr, sets []*set) [][]filter.Element {
	list := make([][]filter.Element, len(sets))
	for _, a := range addrs {
		from := owners(x.addrs.of(a))
		for i, s := range sets {
			begin := len(list[i])
			for _, p := range from {
				list[i] = x.elements(list[i], s.spec, p, a)
			}
			if part := list[i][begin:]; len(part) > 1 {
				slices.SortFunc(part, filter.Element.Compare)
				list[i] = list[i][:begin+len(slices.Compact(part))]
			}
		}
	}
	return list
}

// elements appends what a pod puts into a set for one of its addresses.
func (x *Index) elements(list []filter.Element, spec *SetSpec, p *cluster.Pod, a netip.Addr) []filter.Element {
	if spec.Local && p.Node != x.node {
		return list
	}
	return spec.elements(list, p, x.namespaces[p.Key.Namespace], a)
}

func (x *Index) remember(p *cluster.Pod) {
	if p == nil {
		return
	}
	x.pods[p.Key.Namespace] = append(x.pods[p.Key.Namespace], p)
	if !p.Networked() {
		return
	}
	for _, a := range p.IPs {
		x.addrs.add(a, p)
	}
	if p.Node == x.node {
		x.local[p] = struct{}{}
	}
}

func (x *Index) forget(p *cluster.Pod) {
	if p == nil {
		return
	}
	x.pods[p.Key.Namespace] = without(x.pods[p.Key.Namespace], p)
	if len(x.pods[p.Key.Namespace]) == 0 {
		delete(x.pods, p.Key.Namespace)
	}
	delete(x.local, p)
	if !p.Networked() {
		return
	}
	for _, a := range p.IPs {
		x.addrs.remove(a, p)
	}
}

// without removes a pod from a list, in which the last one takes its place.
func without(list []*cluster.Pod, p *cluster.Pod) []*cluster.Pod {
	if i := slices.Index(list, p); i >= 0 {
		last := len(list) - 1
		list[i], list[last] = list[last], nil
		return list[:last]
	}
	return list
}

// trackSets makes the sets in use those of the layout. A new set is filled
// from all pods of its namespace, or of the cluster.
func (x *Index) trackSets() {
	for key, s := range x.sets {
		if x.layout.Specs[key] == nil {
			delete(x.sets, key)
			delete(x.selected, key)
			delete(x.bound[s.spec.Namespace], key)
			if len(x.bound[s.spec.Namespace]) == 0 {
				delete(x.bound, s.spec.Namespace)
			}
		}
	}
	for key, spec := range x.layout.Specs {
		if x.sets[key] == nil {
			x.track(&set{key: key, spec: spec})
		}
	}
}

func (x *Index) track(s *set) {
	x.sets[s.key] = s
	if s.spec.Namespace != "" {
		if x.bound[s.spec.Namespace] == nil {
			x.bound[s.spec.Namespace] = map[SetKey]*set{}
		}
		x.bound[s.spec.Namespace][s.key] = s
		s.members = membersFrom(x.fill(nil, s.spec, x.pods[s.spec.Namespace]))
		return
	}
	x.selected[s.key] = s
	var all []filter.Element
	for _, pods := range x.pods {
		all = x.fill(all, s.spec, pods)
	}
	s.members = membersFrom(all)
}

func (x *Index) fill(list []filter.Element, spec *SetSpec, pods []*cluster.Pod) []filter.Element {
	for _, p := range pods {
		for _, a := range p.IPs {
			if slices.Contains(owners(x.addrs.of(a)), p) {
				list = x.elements(list, spec, p, a)
			}
		}
	}
	return list
}

func put[K comparable, V any](m map[K]*V, k K, v *V) {
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
}

func nameOf(c cluster.Change[cluster.Namespace]) string {
	if c.New != nil {
		return c.New.Name
	}
	return c.Old.Name
}

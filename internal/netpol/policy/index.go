// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// Index keeps the model of one node up to date. The cost of an update depends on the change: a
// remote pod touches the sets that may select it; a local pod or a policy causes the part of its
// namespace to be recomputed. It is owned by one goroutine.
type Index struct {
	node       string
	namespaces map[string]*cluster.Namespace
	pods       map[string][]*cluster.Pod            // by namespace, in no particular order
	addrs      byAddr                               // networked pods
	addresses  int                                  // their number
	local      map[string]map[*cluster.Pod]struct{} // networked pods of this node, by namespace
	policies   map[string]map[cluster.Key]*cluster.Policy

	parts    map[string]*part // by namespace; absent if it must be recomputed
	over     map[string]over  // policies above the budget, by namespace
	resolved map[*cluster.Policy]*Resolved
	layout   *Layout // nil if it must be joined again
	sets     map[SetKey]*set
	fresh    map[SetKey]int // member counts of the new sets
	find     byPod[*set]
}

// set is a set in use and its members.
type set struct {
	key   SetKey
	spec  *SetSpec
	count int // of the members
	// members are kept while the set is in the layout: those of policies above the budget are only
	// counted.
	members Members
	kept    bool
	filled  *cluster.Pod // with the labels evaluated last, while the set is filled
}

// NewIndex returns the index of an empty cluster.
func NewIndex(node string) *Index {
	return &Index{
		node:       node,
		namespaces: map[string]*cluster.Namespace{},
		pods:       map[string][]*cluster.Pod{},
		addrs:      newByAddr(),
		local:      map[string]map[*cluster.Pod]struct{}{},
		policies:   map[string]map[cluster.Key]*cluster.Policy{},
		parts:      map[string]*part{},
		resolved:   map[*cluster.Policy]*Resolved{},
		sets:       map[SetKey]*set{},
		fresh:      map[SetKey]int{},
		over:       map[string]over{},
	}
}

// Apply applies the changes.
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
		x.judge()
		x.trackSets()
	}
	if over := x.aboveBudget(); x.layout == nil || !sameOver(over, x.over) {
		x.over = over
		x.layout = join(x.parts, over)
		x.keepSets()
	}
	m := &Model{Layout: x.layout, Sets: make(map[SetKey]Members, len(x.layout.Specs)),
		Diagnostics: diagnostics(x.over, x.size), Filled: x.filled()}
	for key := range x.layout.Specs {
		m.Sets[key] = x.sets[key].members
	}
	return m
}

// filled returns the number of members of the new sets, by namespace.
func (x *Index) filled() map[string]int {
	if len(x.fresh) == 0 {
		return nil
	}
	by := map[string]int{}
	for ns, p := range x.parts {
		for key := range p.specs {
			by[ns] += x.fresh[key]
			delete(x.fresh, key)
		}
	}
	clear(x.fresh)
	return by
}

// judge recomputes the parts that changed.
func (x *Index) judge() {
	maps.DeleteFunc(x.parts, func(ns string, _ *part) bool { return len(x.local[ns]) == 0 })
	for ns, local := range x.local {
		if x.parts[ns] == nil {
			pods, policies := slices.Collect(maps.Keys(local)), slices.Collect(maps.Values(x.policies[ns]))
			x.parts[ns] = newPart(pods, policies, x.resolve)
		}
	}
	used := map[*cluster.Policy]bool{}
	for _, p := range x.parts {
		for _, r := range p.resolved {
			used[r.Policy] = true
		}
	}
	maps.DeleteFunc(x.resolved, func(p *cluster.Policy, _ *Resolved) bool { return !used[p] })
}

func (x *Index) size(k SetKey) int { return x.sets[k].count }

func (x *Index) aboveBudget() map[string]over {
	return aboveBudget(x.parts, x.size, x.addresses)
}

// resolve returns the resolved policy, resolving it if necessary.
func (x *Index) resolve(p *cluster.Policy) *Resolved {
	r := x.resolved[p]
	if r == nil {
		r = resolvePolicy(p)
		x.resolved[p] = r
	}
	return r
}

// stale marks the part of a namespace to be recomputed.
func (x *Index) stale(namespace string) {
	delete(x.parts, namespace)
	x.layout = nil
}

// applyNamespace touches the pods of the namespace if the result of a namespace selector changed.
// That is rare, and costs as much as changing the pods.
func (x *Index) applyNamespace(c cluster.Change[cluster.Namespace]) {
	name := nameOf(c)
	var sets []*set
	for _, s := range x.sets {
		if s.spec.tells(c.Old, c.New) {
			sets = append(sets, s)
		}
	}
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

func (x *Index) applyPod(c cluster.Change[cluster.Pod]) {
	var touched []netip.Addr
	for _, p := range []*cluster.Pod{c.Old, c.New} {
		if !p.Networked() {
			continue
		}
		touched = append(touched, p.IPs...)
		if p.Node == x.node {
			x.stale(p.Key.Namespace)
		}
	}
	x.change(touched, x.setsOf(c, touched), func() {
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
	delete(x.resolved, c.Old)
	if x.selectsHere(c.Old) || x.selectsHere(c.New) {
		x.stale(p.Key.Namespace)
	}
}

// selectsHere reports whether a policy selects a pod of this node. Most select none, and change
// nothing.
func (x *Index) selectsHere(p *cluster.Policy) bool {
	if p == nil {
		return false
	}
	for pod := range x.local[p.Key.Namespace] {
		if p.Subject.Matches(pod.Labels) {
			return true
		}
	}
	return false
}

// setsOf returns the sets that the old or new pod can be in, and those of other pods with its
// addresses: the owner of an address matters to all of them.
func (x *Index) setsOf(c cluster.Change[cluster.Pod], addrs []netip.Addr) []*set {
	if len(addrs) == 0 {
		return nil
	}
	found := map[*set]struct{}{}
	add := func(p *cluster.Pod) {
		if p != nil {
			x.find.candidates(p, x.namespaces[p.Key.Namespace], func(s *set) bool {
				found[s] = struct{}{}
				return true
			})
		}
	}
	add(c.Old)
	add(c.New)
	for _, a := range addrs {
		for _, p := range x.addrs.of(a) {
			if p != c.Old {
				add(p)
			}
		}
	}
	return slices.Collect(maps.Keys(found))
}

// change runs mutate and updates the members of the given sets for the touched addresses. The
// elements of an address are computed before and after, from all pods that have it, so that an
// address that two pods share stays a member until both have left.
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
		s := sets[i]
		if s.count += len(after) - len(before[i]); s.kept {
			s.members.replace(before[i], after)
		}
	}
}

// contributions returns for each set the elements of the addresses. addrs must be sorted; the
// elements are sorted too.
func (x *Index) contributions(addrs []netip.Addr, sets []*set) [][]inet.Element {
	list := make([][]inet.Element, len(sets))
	for _, a := range addrs {
		from := owners(x.addrs.of(a))
		for i, s := range sets {
			begin := len(list[i])
			for _, p := range from {
				list[i] = x.elements(list[i], s.spec, p, a)
			}
			if part := list[i][begin:]; len(part) > 1 {
				slices.SortFunc(part, inet.Element.Compare)
				list[i] = list[i][:begin+len(slices.Compact(part))]
			}
		}
	}
	return list
}

// elements appends a pod's elements of a set for one of its addresses.
func (x *Index) elements(list []inet.Element, spec *SetSpec, p *cluster.Pod, a netip.Addr) []inet.Element {
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
	x.addresses += len(p.IPs)
	for _, a := range p.IPs {
		x.addrs.add(a, p)
	}
	if p.Node == x.node {
		if x.local[p.Key.Namespace] == nil {
			x.local[p.Key.Namespace] = map[*cluster.Pod]struct{}{}
		}
		x.local[p.Key.Namespace][p] = struct{}{}
	}
}

func (x *Index) forget(p *cluster.Pod) {
	if p == nil {
		return
	}
	x.pods[p.Key.Namespace] = drop(x.pods[p.Key.Namespace], p)
	if len(x.pods[p.Key.Namespace]) == 0 {
		delete(x.pods, p.Key.Namespace)
	}
	if delete(x.local[p.Key.Namespace], p); len(x.local[p.Key.Namespace]) == 0 {
		delete(x.local, p.Key.Namespace)
	}
	if !p.Networked() {
		return
	}
	x.addresses -= len(p.IPs)
	for _, a := range p.IPs {
		x.addrs.remove(a, p)
	}
}

// trackSets sets the sets in use to those of the parts. New sets are counted, and filled if they
// are not too large, in one walk over the pods.
func (x *Index) trackSets() {
	wanted := map[SetKey]*SetSpec{}
	for _, p := range x.parts {
		maps.Copy(wanted, p.specs)
	}
	for key, s := range x.sets {
		if wanted[key] == nil {
			delete(x.sets, key)
			s.eachSelection(x.find.remove)
		}
	}
	var fresh []*set
	for key, spec := range wanted {
		if x.sets[key] == nil {
			s := &set{key: key, spec: spec}
			x.sets[key] = s
			s.eachSelection(x.find.add)
			fresh = append(fresh, s)
		}
	}
	x.fill(fresh, minElements)
}

// keepSets keeps the members of the sets of the layout, and drops all others.
func (x *Index) keepSets() {
	var missing []*set
	for key, s := range x.sets {
		switch inLayout := x.layout.Specs[key] != nil; {
		case !inLayout:
			s.members, s.kept = Members{}, false
		case !s.kept:
			missing = append(missing, s)
		}
	}
	x.fill(missing, math.MaxInt)
}

func (s *set) eachSelection(f func(*Selection, *set)) {
	for i := range s.spec.Selections {
		f(&s.spec.Selections[i], s)
	}
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

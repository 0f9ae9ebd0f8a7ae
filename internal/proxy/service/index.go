// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/immutable"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// Index keeps the model of a node up to date. It is not safe for concurrent use. After Apply or Set has
// returned an error, which is the context's, it can be used no more.
//
// Of each Service it keeps what the programs hold of it now, as the values from which that was
// computed. A change computes the part of the Service twice, before and after, and applies the
// difference: this costs time, but no memory beside the programs.
type Index struct {
	settings Settings
	node     *cluster.Node // this node's object
	env      *environment
	services map[cluster.Key]*entry
	owners   owners
	taken    taken
	// wanting are the Services that have or want an external address.
	wanting map[netip.Addr][]*entry
	spaces  map[string]*space // by namespace
	budget  int               // of each of them
	parts   [len(inet.Families)]part
	health  map[*entry]Health
	unsound map[*entry]bool      // Services with findings
	told    []cluster.Diagnostic // of unsound, sorted; nil after a change
	idle    map[*entry]bool      // Services without a backend at any front
	without []cluster.Key        // of idle, sorted; nil after a change
	count   int                  // Services
}

// entry is a Service, or slices of one that does not exist.
type entry struct {
	key     cluster.Key
	service *cluster.Service
	slices  []*cluster.EndpointSlice // sorted by name; never modified
	claims  []claim                  // what it may have, unless an older one has it; never modified
	held    *input                   // what the programs hold; nil for nothing
	said    []cluster.Diagnostic     // about the claims
	found   []cluster.Diagnostic     // all
}

// NewIndex returns the Index of an empty cluster.
func NewIndex(settings Settings) *Index {
	x := &Index{
		settings: settings,
		services: map[cluster.Key]*entry{},
		owners:   owners{first: map[program.Front]*entry{}, all: map[program.Front][]*entry{}},
		taken:    newTaken(),
		wanting:  map[netip.Addr][]*entry{},
		spaces:   map[string]*space{},
		budget:   MaxNamespaceWeight,
		health:   map[*entry]Health{},
		unsound:  map[*entry]bool{},
		idle:     map[*entry]bool{},
	}
	x.env = newEnvironment(settings, nil)
	for i, f := range inet.Families {
		x.parts[i] = newPart(x.env.skeleton(f))
	}
	return x
}

// Model returns the model of the cluster after the last Apply.
func (x *Index) Model() *Model {
	m := &Model{IPv4: x.parts[0].publish(), IPv6: x.parts[1].publish()}
	m.Health = slices.SortedFunc(maps.Values(x.health), compareHealth)
	return m
}

// Diagnostics returns what is wrong with the Services now, sorted. The caller must not change it.
func (x *Index) Diagnostics() []cluster.Diagnostic {
	if x.told == nil && len(x.unsound) > 0 {
		unsound := slices.SortedFunc(maps.Keys(x.unsound), func(a, b *entry) int { return a.key.Compare(b.key) })
		for _, e := range unsound {
			x.told = append(x.told, e.found...)
		}
	}
	return x.told
}

// Len returns how many Services there are.
func (x *Index) Len() int { return x.count }

// WithoutEndpoints returns the Services that have no backend at any front, sorted. The caller must not change it.
func (x *Index) WithoutEndpoints() []cluster.Key {
	if x.without == nil && len(x.idle) > 0 {
		for e := range x.idle {
			x.without = append(x.without, e.key)
		}
		slices.SortFunc(x.without, cluster.Key.Compare)
	}
	return x.without
}

// Serves reports whether a backend may keep the clients of a front that it has: the slices of the front's
// Service say that it serves, though it may take no new clients, as a pod that terminates.
func (x *Index) Serves(f program.Front, b program.Backend) bool {
	if !f.Addr.IsValid() { // a node port
		f.Addr = anyAddress(inet.FamilyOf(b.Addr))
	}
	e, p := x.at(f)
	if e == nil {
		return false
	}
	port := cluster.EndpointPort{Name: p.Name, Protocol: p.Protocol, Port: b.Port}
	serving := func(end cluster.Endpoint) bool { return end.Addr == b.Addr && end.Serving }
	return slices.ContainsFunc(e.slices, func(s *cluster.EndpointSlice) bool {
		return slices.Contains(s.Ports, port) && slices.ContainsFunc(s.Endpoints, serving)
	})
}

// at returns the Service that has a front, and its port; nil if none has it. A node port has the unspecified
// address of its family.
func (x *Index) at(f program.Front) (*entry, cluster.ServicePort) {
	e := x.owners.first[f]
	if e == nil {
		return nil, cluster.ServicePort{}
	}
	i := slices.IndexFunc(e.claims, func(c claim) bool { return c.front == f })
	return e, e.service.Ports[e.claims[i].port]
}

// Named returns the Service that a client calls at an address and port, and the number of the Service's port. ok
// is false if packets to there meet no Service.
func (x *Index) Named(to program.Front) (k cluster.Key, port uint16, ok bool) {
	family := inet.FamilyOf(to.Addr)
	r, fate := x.parts[slices.Index(inet.Families[:], family)].at(to)
	if fate != program.Forwarded {
		return k, 0, false
	}
	return x.Owner(r.Front, family)
}

// Owner returns the Service that has a front of a program of a family, and the number of the Service's port. ok is
// false if none has it.
func (x *Index) Owner(f program.Front, family inet.Family) (k cluster.Key, port uint16, ok bool) {
	if !f.Addr.IsValid() { // a node port
		f.Addr = anyAddress(family)
	}
	e, p := x.at(f)
	if e == nil {
		return k, 0, false
	}
	return e.key, p.Port, true
}

// Slots are the backends of all fronts of a family. They never change.
type Slots = immutable.Set[program.Slot]

// Slots returns those of both families, as they are now.
func (x *Index) Slots() []Slots {
	list := make([]Slots, 0, len(x.parts))
	for i := range x.parts {
		list = append(list, x.parts[i].slots)
	}
	return list
}

// Set changes the settings. It costs a computation of every Service.
func (x *Index) Set(ctx context.Context, settings Settings) error {
	x.settings = settings
	work := newWork()
	x.setEnvironment(work)
	return x.finish(ctx, work)
}

// Apply takes over a change of the cluster.
func (x *Index) Apply(ctx context.Context, d *cluster.ServiceDelta) error {
	work := newWork()
	x.applyAddresses(d, work)
	for _, c := range d.Services {
		x.setService(c, work)
	}
	for _, c := range d.Slices {
		x.setSlice(c.Old, c.New, work)
	}
	return x.finish(ctx, work)
}

// work is what a change makes necessary.
type work struct {
	claims map[*entry]bool     // Services whose claims must be decided again
	parts  map[*entry]bool     // Services whose part must be computed again
	moved  map[netip.Addr]bool // addresses that somebody has since, or nobody any more
}

func newWork() *work {
	return &work{claims: map[*entry]bool{}, parts: map[*entry]bool{}, moved: map[netip.Addr]bool{}}
}

// applyAddresses takes over the addresses of nodes and pods, and what this node's object says.
func (x *Index) applyAddresses(d *cluster.ServiceDelta, w *work) {
	for _, c := range d.Nodes {
		if c.Old != nil {
			x.taken.nodes.subtract(c.Old.Addrs, w.moved)
		}
		if c.New != nil {
			x.taken.nodes.add(c.New.Addrs, w.moved)
		}
		if c.Old != nil && c.Old.Name == x.settings.Node || c.New != nil && c.New.Name == x.settings.Node {
			x.node = c.New
			if now := newEnvironment(x.settings, x.node); now.zone != x.env.zone || now.primary != x.env.primary {
				x.setEnvironment(w)
			}
		}
	}
	for _, c := range d.Pods {
		if c.Old.Networked() {
			x.taken.pods.subtract(c.Old.IPs, w.moved)
		}
		if c.New.Networked() {
			x.taken.pods.add(c.New.IPs, w.moved)
		}
	}
}

// setEnvironment makes every Service be computed again.
func (x *Index) setEnvironment(w *work) {
	x.env = newEnvironment(x.settings, x.node)
	for i, f := range inet.Families {
		x.parts[i].frame = x.env.skeleton(f)
	}
	for _, e := range x.services {
		w.claims[e] = true
	}
}

func (x *Index) entry(k cluster.Key) *entry {
	e := x.services[k]
	if e == nil {
		e = &entry{key: k}
		x.services[k] = e
	}
	return e
}

// setService takes over a Service.
func (x *Index) setService(c cluster.Change[cluster.Service], w *work) {
	var k cluster.Key
	if c.New != nil {
		k = c.New.Key
	} else {
		k = c.Old.Key
	}
	e := x.entry(k)
	if e.service != nil {
		x.taken.services.subtract(e.service.ClusterIPs, w.moved)
		for _, a := range outsideAddresses(e.service) {
			x.unwant(a, e)
		}
	}
	if c.New != nil {
		x.taken.services.add(c.New.ClusterIPs, w.moved)
		for _, a := range outsideAddresses(c.New) {
			x.wanting[a] = append(x.wanting[a], e)
		}
	}
	switch {
	case e.service == nil && c.New != nil:
		x.count++
	case e.service != nil && c.New == nil:
		x.count--
	}
	e.service = c.New
	w.claims[e] = true
}

// outsideAddresses returns the external addresses that a Service wants, without duplicates.
func outsideAddresses(s *cluster.Service) (list []netip.Addr) {
	if s.External == nil {
		return nil
	}
	for _, some := range [][]netip.Addr{s.External.LoadBalancerIPs, s.External.IPs} {
		for _, a := range some {
			if !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	return list
}

func (x *Index) unwant(a netip.Addr, e *entry) {
	rest := slices.DeleteFunc(x.wanting[a], func(o *entry) bool { return o == e })
	if x.wanting[a] = rest; len(rest) == 0 {
		delete(x.wanting, a)
	}
}

// setSlice takes over an EndpointSlice. It may have got another Service.
func (x *Index) setSlice(old, now *cluster.EndpointSlice, w *work) {
	if old != nil && (now == nil || old.Parent() != now.Parent()) {
		x.replaceSlice(x.entry(old.Parent()), old.Key, nil, w)
	}
	if now != nil {
		x.replaceSlice(x.entry(now.Parent()), now.Key, now, w)
	}
}

// replaceSlice puts a slice into the list of a Service, or takes it out if it is nil.
func (x *Index) replaceSlice(e *entry, k cluster.Key, s *cluster.EndpointSlice, w *work) {
	w.parts[e] = true
	i, found := slices.BinarySearchFunc(e.slices, k.Name, func(s *cluster.EndpointSlice, name string) int {
		return strings.Compare(s.Key.Name, name)
	})
	list := append(make([]*cluster.EndpointSlice, 0, len(e.slices)+1), e.slices[:i]...)
	if s != nil {
		list = append(list, s)
	}
	if found {
		i++
	}
	e.slices = append(list, e.slices[i:]...)
}

// finish decides the claims again and applies the difference to the programs.
func (x *Index) finish(ctx context.Context, w *work) error {
	for a := range w.moved {
		for _, e := range x.wanting[a] {
			w.claims[e] = true
		}
	}
	x.weighAgain(w)
	if err := x.decideClaims(ctx, w); err != nil {
		return err
	}
	var edits [len(inet.Families)]edit
	for e := range w.parts {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		x.recompute(e, &edits)
		if e.service == nil && len(e.slices) == 0 {
			delete(x.services, e.key)
		}
	}
	for i := range edits {
		x.parts[i].apply(&edits[i])
	}
	return nil
}

// decideClaims replaces the claims of Services, and finds all whose part may be another: those that
// claim a front that has another owner since.
func (x *Index) decideClaims(ctx context.Context, w *work) error {
	owned := map[program.Front]*entry{} // who had the fronts that are claimed or given up
	touch := func(f program.Front) {
		if _, known := owned[f]; !known {
			owned[f] = x.owners.first[f]
		}
	}
	for e := range w.claims {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.parts[e] = true
		for _, c := range e.claims {
			touch(c.front)
			x.owners.remove(c.front, e)
		}
		e.claims, e.said = nil, nil
	}
	for e := range w.claims {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e.service == nil {
			continue
		}
		if x.left(e) {
			e.said = []cluster.Diagnostic{leftOut(e.service)}
			continue
		}
		e.claims, e.said = x.env.claims(e.service, x.held)
		for _, c := range e.claims {
			touch(c.front)
			x.owners.add(c.front, e)
		}
	}
	for f, was := range owned {
		now := x.owners.first[f]
		if now == was || now == nil {
			continue // nobody else has won or lost it
		}
		w.parts[now] = true
		for _, e := range x.owners.all[f] {
			w.parts[e] = true
		}
	}
	return nil
}

func (x *Index) held(a netip.Addr) string {
	switch {
	case x.env.own(a):
		return heldByNode
	case slices.Contains(x.env.APIServer, a):
		return heldByAPI
	case x.taken.nodes.has(a):
		return heldByOther
	case x.taken.services.has(a):
		return heldByService
	case x.taken.pods.has(a):
		return heldByPod
	}
	return ""
}

// recompute replaces the part of a Service in the programs.
func (x *Index) recompute(e *entry, edits *[len(inet.Families)]edit) {
	before, said := e.held.fragment(), e.found
	e.held, e.found = nil, slices.Clip(e.said)
	if e.service != nil {
		won, found := x.won(e)
		e.held = &input{env: x.env, service: e.service, slices: e.slices, won: won, left: x.left(e)}
		e.found = append(e.found, found...)
	}
	after := e.held.fragment()
	e.found = slices.SortedFunc(slices.Values(append(e.found, after.found...)), compareFindings)
	if !slices.Equal(said, e.found) {
		x.told = nil
	}
	for i, f := range inet.Families {
		edits[i].replace(f, &before, &after)
	}
	delete(x.health, e)
	if after.health != nil {
		x.health[e] = *after.health
	}
	note(x.unsound, e, len(e.found) > 0)
	served := func(a answered) bool { return len(a.slots) > 0 }
	idle := e.service != nil && !e.held.left && !slices.ContainsFunc(after.fronts, served)
	if x.idle[e] != idle {
		x.without = nil
	}
	note(x.idle, e, idle)
}

// note puts an entry into a set, or takes it out.
func note(set map[*entry]bool, e *entry, in bool) {
	delete(set, e)
	if in {
		set[e] = true
	}
}

// won returns the claims that no older Service has, and what to say about the others.
func (x *Index) won(e *entry) (list []claim, found []cluster.Diagnostic) {
	gone := 0
	for _, c := range e.claims {
		first := x.owners.first[c.front]
		if first == e {
			continue
		}
		if gone++; gone <= maxFindings {
			found = append(found, lost(e.service, c, first.key))
		}
	}
	if gone == 0 {
		return e.claims, nil // shared: most Services lose nothing
	}
	for _, c := range e.claims {
		if x.owners.first[c.front] == e {
			list = append(list, c)
		}
	}
	return list, few(found, gone)
}

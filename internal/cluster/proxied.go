// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"

	"github.com/podwall/podwall/internal/wake"
)

// MaxTriggers bounds the times in a ServiceDelta. They are for a metric, and a proxy that is this far
// behind has taken long enough to be seen in it.
const MaxTriggers = 4096

// proxied is what the store keeps for a service proxy. Without one nothing is kept.
type proxied struct {
	changed     wake.Signal // holds at most one wake-up
	on          bool
	revision    uint64
	since       int64 // time of the first change since the last TakeServices
	services    table[Service]
	slices      table[EndpointSlice]
	triggered   []int64
	diagnostics findings
	told        []Diagnostic // all of them, sorted; nil after a change
}

func newProxied() proxied {
	return proxied{
		changed:     wake.New(),
		services:    newTable(func(s *Service) Key { return s.Key }, (*Service).Equal),
		slices:      newTable(func(s *EndpointSlice) Key { return s.Key }, (*EndpointSlice).Equal),
		diagnostics: findings{},
	}
}

// KeepServices makes the store keep Services and EndpointSlices, and collect changes for
// TakeServices. It must be called before the first object is stored. Without it what is stored of
// Services is dropped.
func (s *Store) KeepServices() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proxied.on = true
	s.nodes.second = newJournal((*Node).Equal)
	s.pods.second = newJournal(sameAddresses)
}

// sameAddresses reports whether two pods, either of which may be nil, have the same addresses of
// their own.
func sameAddresses(a, b *Pod) bool {
	if a.Networked() && b.Networked() {
		return slices.Equal(a.IPs, b.IPs)
	}
	return a.Networked() == b.Networked()
}

// ServicesChanged receives a value after something changed that TakeServices or MissingServices
// tells. One wake-up may stand for many changes.
func (s *Store) ServicesChanged() <-chan struct{} { return s.proxied.changed }

// MissingServices returns the kinds of ServiceKinds whose first complete list has not arrived. While
// there are any, Services must not be written to the kernel.
func (s *Store) MissingServices() []Kind { return s.missing(ServiceKinds()) }

// TakeServices returns the changes since the last TakeServices. It is independent of Take.
func (s *Store) TakeServices() ServiceDelta {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.proxied
	if !p.on {
		return ServiceDelta{}
	}
	if p.told == nil {
		p.told = p.diagnostics.sorted()
	}
	d := ServiceDelta{
		Revision:    p.revision,
		Source:      s.source,
		Since:       p.since,
		Services:    p.services.take(),
		Slices:      p.slices.take(),
		Nodes:       s.nodes.takeSecond(),
		Pods:        s.pods.takeSecond(),
		Triggered:   p.triggered,
		Diagnostics: p.told,
	}
	p.since, p.triggered = 0, nil
	return d
}

// RestartServices makes the next TakeServices return everything, as the first one did: for a reader that has lost what
// it had.
func (s *Store) RestartServices() {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.proxied
	if !p.on {
		return
	}
	p.services.main.forget()
	p.slices.main.forget()
	s.nodes.second.forget()
	s.pods.second.forget()
}

// ServiceSnapshot returns everything that a service proxy needs, each kind sorted by key. Its cost
// grows with the cluster; the agent's loop uses TakeServices.
func (s *Store) ServiceSnapshot() *ServiceSnapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &ServiceSnapshot{
		Services: s.proxied.services.sorted(),
		Slices:   s.proxied.slices.sorted(),
		Nodes:    s.nodes.sorted(),
		Pods:     slices.DeleteFunc(s.pods.sorted(), func(p *Pod) bool { return !p.Networked() }),
	}
}

// noteProxied notes that the present change has a part that a service proxy needs, if it has, and
// reports that.
func (s *Store) noteProxied(changed bool) bool {
	p := &s.proxied
	if !p.on {
		return false
	}
	changed = changed || s.pods.second.fresh || s.nodes.second.fresh
	s.pods.second.fresh, s.nodes.second.fresh = false, false
	if changed {
		p.revision++
		if p.since == 0 && s.clock != nil {
			p.since = s.clock()
		}
	}
	return changed
}

func (tx *Tx) noteProxied(changed bool) { tx.proxied = tx.proxied || changed }

// SetService stores a Service.
func (tx *Tx) SetService(v *Service) { tx.setService(v.Key, v) }

// DeleteService removes a Service; an unknown one is no error.
func (tx *Tx) DeleteService(k Key) { tx.setService(k, nil) }

func (tx *Tx) setService(k Key, v *Service) {
	if p := &tx.store.proxied; p.on {
		before := p.services.objects.get(k)
		tx.noteProxied(p.services.set(k, v))
		if now := p.services.objects.get(k); !slices.Equal(before.clusterIPs(), now.clusterIPs()) {
			tx.reserveClusterIPs([]*Service{before}, []*Service{now})
		}
	}
}

// ReplaceServices makes the given Services the only ones.
func (tx *Tx) ReplaceServices(list []*Service) {
	if p := &tx.store.proxied; p.on {
		before := slices.Collect(p.services.objects.all())
		tx.noteProxied(p.services.replace(list))
		tx.reserveClusterIPs(before, slices.Collect(p.services.objects.all()))
	}
}

// SetEndpointSlice stores an EndpointSlice.
func (tx *Tx) SetEndpointSlice(v *EndpointSlice) { tx.setSlice(v.Key, v) }

// DeleteEndpointSlice removes an EndpointSlice; an unknown one is no error.
func (tx *Tx) DeleteEndpointSlice(k Key) { tx.setSlice(k, nil) }

func (tx *Tx) setSlice(k Key, v *EndpointSlice) {
	p := &tx.store.proxied
	if !p.on {
		return
	}
	old := p.slices.objects.get(k)
	if !p.slices.set(k, v) {
		return
	}
	tx.noteProxied(true)
	told := v == nil || v.Triggered == 0 || old != nil && old.Triggered == v.Triggered
	if p.slices.main.taken && !told && len(p.triggered) < MaxTriggers {
		p.triggered = append(p.triggered, v.Triggered)
	}
}

// ReplaceEndpointSlices makes the given EndpointSlices the only ones.
func (tx *Tx) ReplaceEndpointSlices(list []*EndpointSlice) {
	p := &tx.store.proxied
	if !p.on {
		return
	}
	p.slices.objects.reserve(len(list))
	for _, v := range list {
		tx.setSlice(v.Key, v)
	}
	tx.noteProxied(p.slices.replace(list)) // now only removes
}

// SetServiceDiagnostics replaces the diagnostics about Services and EndpointSlices of one origin, as
// SetDiagnostics does for all others. They are kept apart: whoever enforces policies is not woken by
// a broken Service, and Services do not use up the number of findings that a namespace may have.
func (tx *Tx) SetServiceDiagnostics(origin any, list []Diagnostic) {
	if p := &tx.store.proxied; p.on && p.diagnostics.set(origin, list) {
		p.told = nil
		tx.noteProxied(true)
	}
}

// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"maps"
	"net/netip"
	"slices"
)

// Announce adds a sandbox. Its pod has the sandbox's addresses as soon as the store has the pod's
// object, until the API names addresses other than those that it named before. Every other pod
// loses these addresses at once, whatever the API still says: the newest sandbox owns an address.
// Repeating an announcement changes nothing.
func (tx *Tx) Announce(s Sandbox) {
	n := &tx.store.announced
	if a := n.byID[s.ID]; a != nil && a.equal(s) {
		return
	}
	n.remove(s.ID)
	touched := []Key{s.Pod}
	if len(n.byID) >= MaxAnnounced {
		least := tx.store.leastNeeded()
		touched = append(touched, n.byID[least].Pod)
		n.remove(least)
	}
	n.add(s)
	if p := tx.store.rawPod(s.Pod); p != nil {
		n.recordObject(p)
	}
	tx.note(tx.store.refresh(touched...))
}

// MaxAnnounced bounds the number of sandboxes that are kept. A node runs a few hundred pods; beyond
// that are sandboxes whose removal was never reported.
const MaxAnnounced = 1024

// leastNeeded returns the sandbox to drop when there are too many: the oldest one that owns no
// address, because its pod is deleted, finished or has a newer sandbox; else the oldest, whose
// addresses the API has named long ago.
func (s *Store) leastNeeded() string {
	var least *announcement
	idle := false
	for _, a := range s.announced.byID {
		owns := len(s.claims(a)) > 0
		alike := owns != idle // both own something, or neither does
		if least == nil || !owns && !idle || alike && a.seq < least.seq {
			least, idle = a, !owns
		}
	}
	return least.ID
}

// Withdraw removes a sandbox; an unknown one is no error. It never affects another sandbox, not
// even one of the same pod.
func (tx *Tx) Withdraw(id string) {
	a := tx.store.announced.byID[id]
	if a == nil {
		return
	}
	tx.store.announced.remove(id)
	tx.note(tx.store.refresh(a.Pod))
}

// Sandbox returns the state of an announced sandbox.
func (s *Store) Sandbox(id string) SandboxStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.announced.byID[id]
	if a == nil {
		return SandboxStatus{}
	}
	return SandboxStatus{Phase: s.phase(a), Revision: a.since}
}

// Announced reports whether a sandbox owns the address: the runtime reported it for a pod of this
// node, and neither the API nor the runtime has contradicted that since. It returns the interfaces
// that lead to the sandbox.
func (s *Store) Announced(ip netip.Addr) (ifaces []string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	owner := s.announced.owners[ip]
	if owner == nil {
		return nil, false
	}
	return owner.Links, true
}

// Sandboxes returns all announced sandboxes, sorted by ID.
func (s *Store) Sandboxes() []Sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Sandbox
	for _, id := range slices.Sorted(maps.Keys(s.announced.byID)) {
		list = append(list, s.announced.byID[id].Sandbox)
	}
	return list
}

func (s *Store) phase(a *announcement) SandboxPhase {
	p := s.pods.objects.get(a.Pod)
	switch {
	case p == nil || !a.matches(p):
		return Waiting
	case s.announced.newest(p) != a || !p.Networked():
		return Superseded
	}
	for _, ip := range a.IPs {
		if !slices.Contains(p.IPs, ip) {
			return Superseded
		}
	}
	return Known
}

// updatePhases records since which revision each announced pod is known.
func (s *Store) updatePhases() {
	for _, a := range s.announced.byID {
		switch known := s.phase(a) == Known; {
		case !known:
			a.since = 0
		case a.since == 0:
			a.since = s.revision
		}
	}
}

// rawPod returns a pod as the API has it, or nil.
func (s *Store) rawPod(k Key) *Pod {
	if p := s.announced.raw[k]; p != nil {
		return p
	}
	return s.pods.objects.get(k)
}

// setPod stores a pod, or removes it if p is nil.
func (s *Store) setPod(k Key, p *Pod) (changed bool) {
	before := s.rawPod(k)
	s.holders.count(before, -1)
	s.holders.count(p, 1)
	s.doubtHolders(before, p)
	if p == nil {
		s.reserved.forget(k)
		s.extras.set(k, nil, nil)
		s.noteRefused(&Pod{Key: k})
		delete(s.announced.raw, k)
		changed = s.pods.set(k, nil)
	} else {
		s.announced.recordObject(p)
		changed = s.place(p)
	}
	if len(s.announced.byPod[k]) > 0 { // the owner of its addresses may have changed
		changed = s.refresh(k) || changed
	}
	return s.settleExtras() || changed
}

// doubtHolders re-evaluates the pods that request an address which the API gave to a pod or took
// from it.
func (s *Store) doubtHolders(before, now *Pod) {
	if len(s.extras.claims) == 0 {
		return
	}
	var a, b []netip.Addr
	if before.Networked() {
		a = before.IPs
	}
	if now.Networked() {
		b = now.IPs
	}
	if !slices.Equal(a, b) {
		s.extras.doubt(slices.Concat(a, b)...)
	}
}

func (s *Store) replacePods(list []*Pod) (changed bool) {
	clear(s.holders)
	clear(s.reserved.lost)
	s.extras.clear()
	s.reserved.known = false
	if len(s.announced.byID) == 0 {
		clear(s.announced.raw)
		changed = s.pods.replace(s.counting(list))
		for p := range s.pods.objects.all() {
			s.holders.count(s.rawPod(p.Key), 1)
		}
		s.extras.doubt(slices.Collect(maps.Keys(s.extras.claims))...) // the holders were not known yet
		return s.settleExtras() || changed
	}
	raw := make(map[Key]*Pod, len(list))
	for _, p := range list {
		raw[p.Key] = p
	}
	for _, p := range raw {
		s.holders.count(p, 1)
	}
	for _, p := range s.pods.list() {
		if raw[p.Key] == nil {
			changed = s.pods.set(p.Key, nil) || changed
		}
	}
	s.announced.raw = raw // place removes what need not be kept
	for _, p := range raw {
		s.announced.recordObject(p)
	}
	return s.refresh() || changed
}

// counting returns a list of pods in their effective form, and keeps the API's version of those
// that differ.
func (s *Store) counting(list []*Pod) []*Pod {
	now := list
	for i, raw := range list {
		p := s.effective(raw)
		if s.noteClaims(raw); p == raw {
			delete(s.announced.raw, raw.Key) // for a list that names a pod twice
			continue
		}
		if &now[0] == &list[0] {
			now = slices.Clone(list)
		}
		now[i], s.announced.raw[raw.Key] = p, raw
	}
	return now
}

// refresh recomputes the owner of each address, and then the pods that this can change: the named
// ones, the announced ones, those that differ from the API's version, and those that lost an
// address. To find the last all pods are read, but only if an address has moved.
func (s *Store) refresh(keys ...Key) (changed bool) {
	before := s.announced.owners
	s.announced.owners = s.owners()
	moved := map[netip.Addr]bool{}
	for ip, a := range s.announced.owners {
		if before[ip] == a {
			continue
		}
		if s.extras.doubt(ip); s.holders.others(ip, s.rawPod(a.Pod)) {
			moved[ip] = true
		}
	}
	for ip := range before {
		if s.announced.owners[ip] == nil {
			s.extras.doubt(ip)
		}
	}
	if len(moved) > 0 {
		keys = append(keys, s.listing(moved)...)
	}
	keys = slices.AppendSeq(keys, maps.Keys(s.announced.raw))
	keys = slices.AppendSeq(keys, maps.Keys(s.announced.byPod))
	for _, k := range keys {
		if p := s.rawPod(k); p != nil {
			changed = s.place(p) || changed
		}
	}
	s.settled = false
	return s.settleExtras() || changed
}

// listing returns the pods that have one of the addresses.
func (s *Store) listing(ips map[netip.Addr]bool) (keys []Key) {
	for p := range s.pods.objects.all() {
		if slices.ContainsFunc(p.IPs, func(ip netip.Addr) bool { return ips[ip] }) {
			keys = append(keys, p.Key)
		}
	}
	return keys
}

// place puts the effective pod into the table.
func (s *Store) place(raw *Pod) bool {
	p := s.effective(raw)
	news := s.noteClaims(raw)
	if p == raw {
		delete(s.announced.raw, raw.Key)
	} else {
		s.announced.raw[raw.Key] = raw
	}
	return s.pods.set(raw.Key, p) || news
}

// effective returns the pod with its addresses after the announcements, with the extra addresses
// that it may have, and without reserved ones; p itself if nothing changes.
func (s *Store) effective(p *Pod) *Pod {
	if p.HostNetwork || p.Finished {
		s.extras.set(p.Key, nil, nil)
		return p
	}
	ips := s.reserved.unreserved(s.announcedIPs(p), s.announced.addrs(p))
	if p.Extra() != nil {
		s.extras.set(p.Key, p, ips)
		ips = s.withExtra(ips, p)
	} else if len(s.extras.of) > 0 {
		s.extras.set(p.Key, nil, nil)
	}
	if slices.Equal(ips, p.IPs) {
		return p
	}
	q := *p
	q.IPs = ips
	return &q
}

// announcedIPs returns the pod's addresses after the announcements.
func (s *Store) announcedIPs(p *Pod) []netip.Addr {
	if len(s.announced.byID) == 0 {
		return p.IPs
	}
	ips := p.IPs
	if a := s.announced.newest(p); a != nil {
		ips = a.addresses(p)
	}
	return s.kept(ips, p)
}

// kept returns the addresses except those of sandboxes of other pods.
func (s *Store) kept(ips []netip.Addr, p *Pod) []netip.Addr {
	lost := func(ip netip.Addr) bool {
		a := s.announced.owners[ip]
		return a != nil && !a.matches(p)
	}
	if slices.ContainsFunc(ips, lost) {
		ips = slices.DeleteFunc(slices.Clone(ips), lost)
	}
	return ips
}

// owners returns for each announced address the newest sandbox that has it.
func (s *Store) owners() map[netip.Addr]*announcement {
	list := map[netip.Addr]*announcement{}
	for _, a := range s.announced.byID {
		for _, ip := range s.claims(a) {
			if o := list[ip]; o == nil || o.seq < a.seq {
				list[ip] = a
			}
		}
	}
	return list
}

// claims returns the addresses that a sandbox may own. Before its pod's object arrives the sandbox
// is trusted: a new pod may have the address of one that is still listed. After the object is
// deleted, or the pod finished, it is not: the runtime may have failed to report the end.
func (s *Store) claims(a *announcement) []netip.Addr {
	p := s.rawPod(a.Pod)
	switch {
	case p == nil || !a.matches(p):
		if a.met || s.announced.superseded(a) {
			return nil
		}
		return a.IPs
	case p.HostNetwork || p.Finished || s.announced.newest(p) != a:
		return nil
	}
	has := a.addresses(p)
	return slices.DeleteFunc(slices.Clone(a.IPs), func(ip netip.Addr) bool { return !slices.Contains(has, ip) })
}

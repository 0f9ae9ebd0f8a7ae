// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"
)

// Sandbox is what the container runtime says of a pod before its containers
// start. It is the first to know a pod's addresses: the API names them only
// after the pod has started.
type Sandbox struct {
	// ID is the runtime's. A pod that is started again gets a new one.
	ID  string
	Pod Key
	// UID is the pod's; empty where the runtime does not say it.
	UID string
	// Node is where the runtime runs: a pod that is bound elsewhere is not meant.
	Node string
	// IPs are unmapped, without zone and without duplicates.
	IPs []netip.Addr
	// Links are the interfaces on the node's side.
	Links []string
}

func (s Sandbox) equal(o Sandbox) bool {
	return s.ID == o.ID && s.Pod == o.Pod && s.UID == o.UID && s.Node == o.Node && slices.Equal(s.IPs, o.IPs) && slices.Equal(s.Links, o.Links)
}

// matches reports whether a pod object is the one that the sandbox is for. An
// object without UID comes from manifests and is taken at its name.
func (s Sandbox) matches(p *Pod) bool {
	return p.Key == s.Pod && p.Node == s.Node && samePod(s.UID, p.UID)
}

func samePod(a, b string) bool { return a == b || a == "" || b == "" }

// SandboxPhase says how far the store is with an announced sandbox.
type SandboxPhase uint8

// The phases. Unannounced: not announced, or withdrawn. Waiting: the pod's
// object is not here yet, or is not the announced one. Known: the pod has the
// announced addresses. Overtaken: it has not and will not, because a newer
// sandbox has them, the API names others, or the pod needs none.
const (
	Unannounced SandboxPhase = iota
	Waiting
	Known
	Overtaken
)

// SandboxStatus is the answer of Store.Sandbox.
type SandboxStatus struct {
	Phase SandboxPhase
	// Revision is the one from which on the phase Known holds; zero otherwise.
	Revision uint64
}

// announcement is a Sandbox and what is remembered about it.
type announcement struct {
	Sandbox
	seq uint64 // of two, the one with the higher number is newer
	met bool   // the store had the pod's object at some time since
	// stale are the addresses that the object had when they met. They were
	// written before this sandbox was there, so they say nothing about it.
	stale []netip.Addr
	since uint64 // revision of SandboxStatus
}

// addresses returns what the pod's addresses are: the announced ones until the
// API has its own.
func (a *announcement) addresses(p *Pod) []netip.Addr {
	if len(p.IPs) == 0 || slices.Equal(p.IPs, a.stale) {
		return a.IPs
	}
	return p.IPs
}

// announcements are the part of a Store that knows what the runtime announced.
// The table of pods holds what counts; raw holds what the API says, for those
// pods for which that is something else.
type announcements struct {
	seq    uint64
	byID   map[string]*announcement
	byPod  map[Key][]*announcement // oldest first
	owners map[netip.Addr]*announcement
	raw    map[Key]*Pod
}

func newAnnouncements() announcements {
	return announcements{byID: map[string]*announcement{}, byPod: map[Key][]*announcement{},
		owners: map[netip.Addr]*announcement{}, raw: map[Key]*Pod{}}
}

func (n *announcements) add(s Sandbox) {
	n.seq++
	a := &announcement{Sandbox: s, seq: n.seq}
	n.byID[s.ID] = a
	n.byPod[s.Pod] = append(n.byPod[s.Pod], a)
}

func (n *announcements) remove(id string) {
	a := n.byID[id]
	if a == nil {
		return
	}
	delete(n.byID, id)
	rest := slices.DeleteFunc(n.byPod[a.Pod], func(o *announcement) bool { return o == a })
	if n.byPod[a.Pod] = rest; len(rest) == 0 {
		delete(n.byPod, a.Pod)
	}
}

// meet notes that the store has a pod's object.
func (n *announcements) meet(p *Pod) {
	for _, a := range n.byPod[p.Key] {
		if !a.met && a.matches(p) {
			a.met, a.stale = true, p.IPs
		}
	}
}

// newest returns the pod's youngest announcement, or nil.
func (n *announcements) newest(p *Pod) *announcement {
	for _, a := range slices.Backward(n.byPod[p.Key]) {
		if a.matches(p) {
			return a
		}
	}
	return nil
}

// addrs returns the addresses of the pod's youngest announcement.
func (n *announcements) addrs(p *Pod) []netip.Addr {
	if a := n.newest(p); a != nil {
		return a.IPs
	}
	return nil
}

// overtaken reports whether the same pod, whose object is not here, has a newer
// sandbox.
func (n *announcements) overtaken(a *announcement) bool {
	return slices.ContainsFunc(n.byPod[a.Pod], func(o *announcement) bool {
		return o.seq > a.seq && samePod(o.UID, a.UID)
	})
}

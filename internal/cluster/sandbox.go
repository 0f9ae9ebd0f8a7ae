// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"net/netip"
	"slices"
)

// Sandbox is the container runtime's report of a pod before its containers start. The runtime is
// the first to know a pod's addresses: the API names them only after the pod has started.
type Sandbox struct {
	// ID is the runtime's. A restarted pod gets a new one.
	ID  string
	Pod Key
	// UID is the pod's; empty if the runtime does not report it.
	UID string
	// Node is the runtime's node. Pods that are bound to another node do not match.
	Node string
	// IPs are unmapped, without zone and without duplicates.
	IPs []netip.Addr
	// Links are the interfaces on the node's side.
	Links []string
}

func (s Sandbox) equal(o Sandbox) bool {
	return s.ID == o.ID && s.Pod == o.Pod && s.UID == o.UID && s.Node == o.Node && slices.Equal(s.IPs, o.IPs) &&
		slices.Equal(s.Links, o.Links)
}

// matches reports whether a pod object is the one of this sandbox. An object without UID comes from
// manifests and matches by name.
func (s Sandbox) matches(p *Pod) bool {
	return p.Key == s.Pod && p.Node == s.Node && samePod(s.UID, p.UID)
}

func samePod(a, b string) bool { return a == b || a == "" || b == "" }

// SandboxPhase is the store's progress with an announced sandbox.
type SandboxPhase uint8

// The phases. Unannounced: not announced, or withdrawn. Waiting: the pod's object is not in the
// store yet, or is not the announced one. Known: the pod has the announced addresses. Superseded:
// the pod does not have them and will not get them, because a newer sandbox has them, the API names
// others, or the pod needs none.
const (
	Unannounced SandboxPhase = iota
	Waiting
	Known
	Superseded
)

// SandboxStatus is the result of Store.Sandbox.
type SandboxStatus struct {
	Phase SandboxPhase
	// Revision is the first revision of the phase Known; zero in other phases.
	Revision uint64
}

// announcement is a Sandbox and the facts that the store keeps about it.
type announcement struct {
	Sandbox
	seq uint64 // the higher number is the newer sandbox
	met bool   // the store has had the pod's object since
	// stale are the addresses that the object had when it first matched. They predate this sandbox,
	// so they say nothing about it.
	stale []netip.Addr
	since uint64 // revision of SandboxStatus
}

// addresses returns the pod's addresses: the announced ones until the API has its own.
func (a *announcement) addresses(p *Pod) []netip.Addr {
	if len(p.IPs) == 0 || slices.Equal(p.IPs, a.stale) {
		return a.IPs
	}
	return p.IPs
}

// announcements is the part of a Store that holds the runtime's announcements. The table of pods
// holds the effective pods; raw holds the API's version of the pods for which that differs.
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

// recordObject notes that the store has a pod's object.
func (n *announcements) recordObject(p *Pod) {
	for _, a := range n.byPod[p.Key] {
		if !a.met && a.matches(p) {
			a.met, a.stale = true, p.IPs
		}
	}
}

// newest returns the pod's newest announcement, or nil.
func (n *announcements) newest(p *Pod) *announcement {
	for _, a := range slices.Backward(n.byPod[p.Key]) {
		if a.matches(p) {
			return a
		}
	}
	return nil
}

// addrs returns the addresses of the pod's newest announcement.
func (n *announcements) addrs(p *Pod) []netip.Addr {
	if a := n.newest(p); a != nil {
		return a.IPs
	}
	return nil
}

// superseded reports whether the same pod, whose object is not in the store, has a newer sandbox.
func (n *announcements) superseded(a *announcement) bool {
	return slices.ContainsFunc(n.byPod[a.Pod], func(o *announcement) bool {
		return o.seq > a.seq && samePod(o.UID, a.UID)
	})
}

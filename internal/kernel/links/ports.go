// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/inet"
)

// ports knows which pod is behind which port of a bridge. A port is one pod's for as
// long as both exist: whatever the pod does with the other end, which it may
// move, rename or give other addresses, changes nothing. What says whose a port is, in
// the order in which it counts:
//
//  1. the container runtime announced it at the start gate;
//  2. the table in the kernel says that an earlier process knew it (Bind);
//  3. the addresses that the other end had when it was first asked, which the pod
//     network had given it: the port of a pod that the API names is the one that has its
//     address, if there is exactly one (search).
//
// What pods say on the wire is never asked.
type ports struct {
	ends map[int]*end // by the index of the port's interface
	// unclear says why an address that some port has is not believed to be there.
	unclear map[netip.Addr]string
	now     func() time.Time
}

// end is what is known of the other end of a port.
type end struct {
	port     string        // its name when it was first seen
	pod      who           // the pod behind it; nobody while it is not known
	hardware inet.Hardware // when the pod got the port
	// addrs are the addresses that it had when it was first asked and had any, and seen
	// is the hardware address that it had then.
	addrs        []netip.Addr
	seen         inet.Hardware
	since, asked time.Time // it was asked in vain
}

// who names a pod. An earlier process may not have kept the whole ID: "" is any.
type who struct{ name, id string }

func (w who) nobody() bool { return w.name == "" }

func (w who) is(p Pod) bool {
	return w.name == p.Name && (w.id == p.ID || w.id == "" || p.ID == "")
}

func newPorts() ports {
	return ports{ends: map[int]*end{}, unclear: map[netip.Addr]string{}, now: time.Now}
}

// Binding says that an address, and the pod that has it, are behind a port.
type Binding struct {
	Pod, ID  string
	Addr     netip.Addr
	Port     string
	Index    int // of the port's interface
	Hardware inet.Hardware
}

// Bind takes over what an earlier process knew of ports. It comes before the first
// Find, and is forgotten where the index is another interface's by now.
func (l *Links) Bind(list []Binding) {
	for _, b := range list {
		e := l.ports.ends[b.Index]
		if e == nil {
			e = &end{port: b.Port, pod: who{b.Pod, b.ID}, hardware: b.Hardware}
			l.ports.ends[b.Index] = e
		}
		e.addrs = append(e.addrs, b.Addr)
	}
}

// portsOf returns the ports that pods may be behind, by their index.
func portsOf(devices map[int]device) map[int]device {
	now := map[int]device{}
	for _, d := range devices {
		if d.master != 0 && d.away && pair(d.kind) {
			now[d.index] = d
		}
	}
	return now
}

// askEach is how often a port that has no address yet is asked, in the end; at first
// it is asked after as long as it has been there.
const (
	askFirst = 10 * time.Millisecond
	askEach  = time.Second
)

// maxAddrs bounds the addresses of a port that are remembered. A pod has a few.
const maxAddrs = 64

// young is how long a port that has no address is worth being asked soon.
const young = 30 * time.Second

// survey asks the ports that are new for their addresses.
func (p *ports) survey(now map[int]device, other *away) {
	maps.DeleteFunc(p.ends, func(index int, e *end) bool { return now[index].name != e.port })
	for index, d := range now {
		e := p.ends[index]
		if e == nil {
			e = &end{port: d.name, since: p.now()}
			p.ends[index] = e
		}
		if len(e.addrs) > 0 || !e.asked.IsZero() && p.now().Sub(e.asked) < e.pause() {
			continue
		}
		e.asked = p.now()
		addrs, err := other.addresses(d)
		seen, failed := other.hardware(d)
		if err == nil && failed == nil { // else it is going away; the kernel will tell
			e.addrs, e.seen = addrs[:min(len(addrs), maxAddrs)], seen
		}
	}
}

// AskAgain returns after which time to ask ports again that are new and have no address
// yet; 0 for never. What a port gets from the pod network counts, what the pod takes
// later does not, so this comes soon.
func (l *Links) AskAgain() (after time.Duration) {
	for _, e := range l.ports.ends {
		if len(e.addrs) == 0 && l.ports.now().Sub(e.since) < young {
			if wait := e.pause(); after == 0 || wait < after {
				after = wait
			}
		}
	}
	return after
}

// pause is the time between two questions.
func (e *end) pause() time.Duration { return min(max(e.asked.Sub(e.since), askFirst), askEach) }

// announced takes the runtime's word for whose ports are.
func (p *ports) announced(now map[int]device, pods []Pod, other *away) {
	named := map[string]device{}
	for _, d := range now {
		named[d.name] = d
	}
	for _, pod := range pods {
		for _, name := range pod.Links {
			d, there := named[name]
			e := p.ends[d.index]
			if !there || e.pod.is(pod) && slices.Contains(e.addrs, pod.Addr) {
				continue
			}
			hardware, err := other.hardware(d)
			if err != nil {
				continue
			}
			if !e.pod.is(pod) {
				e.pod, e.hardware, e.addrs = who{pod.Name, pod.ID}, hardware, nil
			}
			e.addrs = append(e.addrs, pod.Addr)
		}
	}
}

// release takes the ports from pods that are gone: the interface may be that of the next
// pod with the address, found before the API had told of it. What the port had when it
// was first asked stays.
func (p *ports) release(pods []Pod) {
	named := map[string][]Pod{}
	for _, pod := range pods {
		named[pod.Name] = append(named[pod.Name], pod)
	}
	for _, e := range p.ends {
		if !e.pod.nobody() && !slices.ContainsFunc(named[e.pod.name], e.pod.is) {
			e.pod, e.hardware = who{}, inet.Hardware{}
		}
	}
}

// find returns the port of each address that is looked for.
func (p *ports) find(devices map[int]device, pods []Pod, wishes map[netip.Addr]wish) (map[netip.Addr]device, error) {
	now := portsOf(devices)
	other := &away{}
	p.survey(now, other)
	p.release(pods)
	p.announced(now, pods, other)
	s := search{ends: p.ends, now: now, away: other, wishes: wishes, found: map[netip.Addr]device{}, why: map[netip.Addr]string{}}
	s.run(pods)
	p.unclear = s.why
	return s.found, other.close()
}

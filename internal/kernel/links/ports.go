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

// ports tracks which pod is behind which port of a bridge. A port belongs to one pod as long as both exist:
// the pod may move or rename its end, or give it other addresses, without effect. These sources name the
// pod of a port, in order of precedence:
//
//  1. the container runtime announced it at the start gate;
//  2. the table in the kernel says that an earlier process knew it (Bind);
//  3. the addresses of the peer when it was first read, which the pod network had assigned: the port belongs to
//     the pod with one of these addresses in the API, if there is exactly one (search).
//
// Packets sent by pods are never used.
type ports struct {
	ends map[int]*end // by the index of the port's interface
	// unclear explains why an address of some port is not accepted there.
	unclear map[netip.Addr]string
	now     func() time.Time
}

// end is the state of the peer of a port.
type end struct {
	port     string        // its name when it was first seen
	pod      who           // the pod behind it; the zero value while unknown
	hardware inet.Hardware // when the pod got the port
	// addrs are the peer's addresses when it was first read and had any, and seen is its hardware address
	// at that time.
	addrs        []netip.Addr
	seen         inet.Hardware
	since, asked time.Time // first seen, and last read without result
}

// who identifies a pod. An earlier process may not have stored the whole ID: "" matches any.
type who struct{ name, id string }

func (w who) unknown() bool { return w.name == "" }

func (w who) is(p Pod) bool {
	return w.name == p.Name && (w.id == p.ID || w.id == "" || p.ID == "")
}

func newPorts() ports {
	return ports{ends: map[int]*end{}, unclear: map[netip.Addr]string{}, now: time.Now}
}

// Binding records that an address and its pod are behind a port.
type Binding struct {
	Pod, ID  string
	Addr     netip.Addr
	Port     string
	Index    int // of the port's interface
	Hardware inet.Hardware
}

// Bind takes over the bindings of an earlier process. It is called before the first Find. A binding is
// dropped if another interface has the index by now.
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

// portsOf returns the ports that may lead to pods, by index.
func portsOf(devices map[int]device) map[int]device {
	now := map[int]device{}
	for _, d := range devices {
		if d.master != 0 && d.away && pair(d.kind) {
			now[d.index] = d
		}
	}
	return now
}

// askEach is the maximum pause before a port without addresses is read again; the first pauses equal the
// age of the port.
const (
	askFirst = 10 * time.Millisecond
	askEach  = time.Second
)

// maxAddrs bounds the stored addresses of a port. A pod has a few.
const maxAddrs = 64

// young is how long a port without addresses is read again early.
const young = 30 * time.Second

// survey reads the addresses of new ports.
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
		if err == nil && failed == nil { // else the port is being deleted; the kernel will notify
			e.addrs, e.seen = addrs[:min(len(addrs), maxAddrs)], seen
		}
	}
}

// RetryAfter returns the delay until new ports without addresses are to be read again; 0 for never. Addresses
// from the pod network count and addresses that the pod adds later do not, so the delay is short.
func (l *Links) RetryAfter() (after time.Duration) {
	for _, e := range l.ports.ends {
		if len(e.addrs) == 0 && l.ports.now().Sub(e.since) < young {
			if wait := e.pause(); after == 0 || wait < after {
				after = wait
			}
		}
	}
	return after
}

// pause is the time between two reads.
func (e *end) pause() time.Duration { return min(max(e.asked.Sub(e.since), askFirst), askEach) }

// announced assigns the ports that the container runtime announced.
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

// release detaches ports from deleted pods: the interface may belong to the next pod with the address,
// found before the API reported that pod. The addresses of the port at its first read are kept.
func (p *ports) release(pods []Pod) {
	named := map[string][]Pod{}
	for _, pod := range pods {
		named[pod.Name] = append(named[pod.Name], pod)
	}
	for _, e := range p.ends {
		if !e.pod.unknown() && !slices.ContainsFunc(named[e.pod.name], e.pod.is) {
			e.pod, e.hardware = who{}, inet.Hardware{}
		}
	}
}

// find returns the port of each address in wishes.
func (p *ports) find(devices map[int]device, pods []Pod, wishes map[netip.Addr]wish) (map[netip.Addr]device, error) {
	now := portsOf(devices)
	other := &away{}
	p.survey(now, other)
	p.release(pods)
	p.announced(now, pods, other)
	s := search{ends: p.ends, now: now, away: other, wishes: wishes,
		found: map[netip.Addr]device{}, why: map[netip.Addr]string{}}
	s.run(pods)
	p.unclear = s.why
	return s.found, other.close()
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
)

// Endpoint is a place that sends and receives.
type Endpoint struct {
	Name  string
	NS    *netns.NS
	Addrs []netip.Addr
	// Device is the link on which arrivals are seen, the moment they enter the
	// namespace. Empty means: seen when the namespace itself takes them, after
	// its input hook. A node must be watched so, since it judges what it takes.
	// (The watching socket keeps its kernel from answering SCTP.)
	Device string
}

// Prober holds the sockets of all endpoints. Its methods may be called from
// several goroutines.
type Prober struct {
	// Settle is how long a probe may take to arrive when the counters say that all are
	// dropped. A packet is through a node before the call that sends it returns, but where
	// a neighbour has to be asked first or the processor has other work. 0 believes the
	// counters at once: for beds on which nobody else's packets are dropped.
	Settle time.Duration

	poll int // epoll
	wake int // eventfd that ends the reader
	done chan struct{}

	mu        sync.Mutex // guards everything below
	endpoints map[string]*endpoint
	sockets   map[int32]*socket
	sent      map[uint32]Probe
	arrivals  map[uint32][]Arrival
	replies   map[uint32][]Reply
	waiting   chan struct{} // closed at the next news; nil while nobody waits
	lastID    uint32
	lastPort  uint16
	readErr   error
}

type endpoint struct {
	Endpoint
	send4, send6 int
	device       *net.Interface // nil when Device is empty
	frames       int            // packet socket, -1 when Device is empty
	sockets      []*socket
}

// New returns a prober without endpoints. Its one goroutine ends with Close.
func New() (*Prober, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a poll set: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a wake-up: %w", err), unix.Close(poll))
	}
	p := &Prober{poll: poll, wake: wake, done: make(chan struct{}), endpoints: map[string]*endpoint{},
		sockets: map[int32]*socket{}, lastPort: firstPort}
	p.reset()
	go p.read()
	return p, nil
}

// Add opens the sockets of an endpoint.
func (p *Prober) Add(e Endpoint) error {
	ep := &endpoint{Endpoint: e, send4: -1, send6: -1, frames: -1}
	if err := e.NS.Do(ep.open); err != nil {
		ep.close()
		return fmt.Errorf("opening the probe sockets of %s: %w", e.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.endpoints[e.Name] != nil {
		ep.close()
		return fmt.Errorf("adding endpoint %s: it is there already", e.Name)
	}
	p.endpoints[e.Name] = ep
	for _, s := range ep.sockets {
		p.sockets[int32(s.fd)] = s
		if err := unix.EpollCtl(p.poll, unix.EPOLL_CTL_ADD, s.fd, &unix.EpollEvent{Events: unix.EPOLLIN,
			Fd: int32(s.fd)}); err != nil {
			p.remove(ep)
			return fmt.Errorf("watching endpoint %s: %w", e.Name, err)
		}
	}
	return nil
}

// Remove closes the sockets of an endpoint; an unknown one is no error. It must
// not run while something is sent from that endpoint. A namespace lives on
// while there are sockets in it.
func (p *Prober) Remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ep := p.endpoints[name]; ep != nil {
		p.remove(ep)
	}
}

func (p *Prober) remove(ep *endpoint) {
	for _, s := range ep.sockets {
		delete(p.sockets, int32(s.fd))
	}
	delete(p.endpoints, ep.Name)
	ep.close() // a closed socket leaves the poll set by itself
}

// Close ends the reader and closes all sockets.
func (p *Prober) Close() error {
	_, err := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if err != nil {
		return fmt.Errorf("ending the reader: %w", err)
	}
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ep := range p.endpoints {
		p.remove(ep)
	}
	return errors.Join(p.readErr, unix.Close(p.poll), unix.Close(p.wake))
}

// Reset forgets all probes and what was seen of them.
func (p *Prober) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reset()
}

func (p *Prober) reset() {
	p.sent, p.arrivals, p.replies = map[uint32]Probe{}, map[uint32][]Arrival{}, map[uint32][]Reply{}
}

// NextID returns a number that was not given out before.
func (p *Prober) NextID() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	return p.lastID
}

// Arrived returns where a probe was seen, in order of time; usually once.
func (p *Prober) Arrived(id uint32) []Arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.arrivals[id]
}

// Replies returns the answers to a probe.
func (p *Prober) Replies(id uint32) []Reply {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.replies[id]
}

// Lost returns how many packets the kernel could not hand to the prober since
// the last call, because they came too fast: arrivals that were not seen.
func (p *Prober) Lost() (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var lost uint64
	for _, ep := range p.endpoints {
		if ep.frames < 0 {
			continue
		}
		stats, err := unix.GetsockoptTpacketStats(ep.frames, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			return 0, fmt.Errorf("reading the packet socket's losses: %w", err)
		}
		lost += uint64(stats.Drops)
	}
	return lost, nil
}

// note records what one received packet means.
func (p *Prober) note(at string, pkt packet.Packet, kind packet.Kind) {
	if id := probeID(pkt, kind); id != 0 {
		p.arrivals[id] = append(p.arrivals[id], Arrival{ID: id, Endpoint: at, Proto: pkt.Proto,
			Src: netip.AddrPortFrom(pkt.Src, pkt.SrcPort), Dst: netip.AddrPortFrom(pkt.Dst, pkt.DstPort)})
		p.news()
		return
	}
	id, answer := reply(pkt, kind)
	if id == 0 || p.sent[id].From != at || p.sent[id].Proto != pkt.Proto && pkt.Proto != packet.ICMP {
		return
	}
	p.replies[id] = append(p.replies[id], Reply{ID: id, Kind: answer, Endpoint: at, From: pkt.Src})
	p.news()
}

func (p *Prober) news() {
	if p.waiting != nil {
		close(p.waiting)
		p.waiting = nil
	}
}

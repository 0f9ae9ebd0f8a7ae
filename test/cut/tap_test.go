// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
)

// tap counts the packets that enter a pod, by protocol and by the client's end: the server's address may be
// a Service's on the way.
type tap struct {
	fd   int
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	seen map[way]arrivals
}

// way is one direction of a connection, as the pod at its end sees it.
type way struct {
	proto    packet.Protocol
	client   netip.AddrPort
	toServer bool
}

type arrivals struct {
	count int
	last  time.Time
}

func newTap(t *testing.T, ns *netns.NS) *tap {
	t.Helper()
	p := &tap{stop: make(chan struct{}), done: make(chan struct{}), seen: map[way]arrivals{}}
	check(t, ns.Do(func() (err error) {
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return errors.Join(err, unix.Close(p.fd))
		}
		return errors.Join(
			unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
			unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8, Ifindex: link.Index}))
	}))
	go p.run()
	t.Cleanup(p.close)
	return p
}

func (p *tap) close() {
	select {
	case <-p.stop:
		return // twice
	default:
	}
	close(p.stop)
	<-p.done
	_ = unix.Close(p.fd)
}

func (p *tap) run() {
	defer close(p.done)
	buf := make([]byte, 65536)
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			continue // the time to look whether to stop
		}
		if pk, _, ok := packet.Parse(buf[:n]); ok {
			p.note(way{pk.Proto, netip.AddrPortFrom(pk.Dst, pk.DstPort), false})
			p.note(way{pk.Proto, netip.AddrPortFrom(pk.Src, pk.SrcPort), true})
		}
	}
}

func (p *tap) note(w way) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.seen[w]
	p.seen[w] = arrivals{a.count + 1, time.Now()}
}

// of returns what arrived so far.
func (p *tap) of(w way) arrivals {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[w]
}

// total returns how many packets of a protocol arrived so far from clients.
func (p *tap) total(proto packet.Protocol, from netip.Addr) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w, a := range p.seen {
		if w.proto == proto && w.toServer && w.client.Addr() == from {
			n += a.count
		}
	}
	return n
}

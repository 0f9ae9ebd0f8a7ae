// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
)

// beat is the interval at which each end of a connection sends.
const beat = 20 * time.Millisecond

// end is one end of a connection. It sends increasing numbers, and records the numbers that it receives.
type end struct {
	mu             sync.Mutex
	heard, highest uint64
	err            error // of the reading side
}

// lost returns how many numbers are missing among those received.
func (e *end) lost() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.highest - e.heard
}

func (e *end) count() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard
}

func (e *end) hear(message []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard++
	e.highest = max(e.highest, binary.BigEndian.Uint64(message))
}

func (e *end) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
	}
}

func (e *end) broken() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// say sends a number in each beat until stopped. After a send error it tries again: with UDP a refusal ends
// with the next packet.
func say(stop <-chan struct{}, write func([]byte) error) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	message := make([]byte, 8)
	for n := uint64(1); ; {
		binary.BigEndian.PutUint64(message, n)
		if write(message) == nil {
			n++ // if it is lost, it is missing at the other end
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// writer writes to a connection without waiting for buffer space: a message that does not fit is left out
// as a whole.
func writer(c net.Conn) func([]byte) error {
	return func(b []byte) error {
		if err := c.SetWriteDeadline(time.Now().Add(beat)); err != nil {
			return err
		}
		_, err := c.Write(b)
		return err
	}
}

// talk is a connection on which both ends send.
type talk struct {
	name     string
	host     *host
	proto    packet.Protocol
	client   netip.AddrPort
	from, to *tap
	asking   *end // the client's end
	goes     bool // still allowed when the policy changes
}

// host is a server that talks to every client.
type host struct {
	stop  chan struct{}
	group sync.WaitGroup
	close []func() error

	mu   sync.Mutex
	ends map[way]*end
}

// listen serves port of every address, TCP and UDP.
func listen(t *testing.T, ns *netns.NS, port uint16, addrs ...netip.Addr) *host {
	t.Helper()
	h := &host{stop: make(chan struct{}), ends: map[way]*end{}}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, port)
		l, err := ns.Listen(t.Context(), "tcp", at.String())
		check(t, err)
		var u *net.UDPConn
		check(t, ns.Do(func() (err error) {
			u, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			return err
		}))
		h.close = append(h.close, l.Close, u.Close)
		h.group.Go(func() { h.accept(l) })
		h.group.Go(func() { h.receive(u) })
	}
	t.Cleanup(h.end)
	return h
}

// end ends all talks.
func (h *host) end() {
	select {
	case <-h.stop:
		return // twice
	default:
	}
	close(h.stop)
	h.endServer()
	h.group.Wait()
}

// endServer ends the server silently, like a deleted pod: its sockets are closed and no packet shows it.
// The clients continue.
func (h *host) endServer() {
	for _, f := range h.close {
		_ = f() // twice is fine
	}
}

// of returns the server's end of a connection, which it makes; isNew is false
// from the second time on.
func (h *host) of(w way) (e *end, isNew bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e, isNew = h.ends[w], h.ends[w] == nil; isNew {
		e = &end{}
		h.ends[w] = e
	}
	return e, isNew
}

func unmap(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

func (h *host) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		e, _ := h.of(way{packet.TCP, unmap(c.RemoteAddr()), true})
		h.group.Go(func() {
			say(h.stop, writer(c))
			_ = c.Close() // ends the reading
		})
		h.group.Go(func() { listenTo(c, e) })
	}
}

// listenTo receives numbers from a stream.
func listenTo(c io.Reader, e *end) {
	message := make([]byte, 8)
	for {
		if _, err := io.ReadFull(c, message); err != nil {
			e.fail(err)
			return
		}
		e.hear(message)
	}
}

func (h *host) receive(u *net.UDPConn) {
	message := make([]byte, 8)
	for {
		_, from, err := u.ReadFromUDPAddrPort(message)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		e, isNew := h.of(way{packet.UDP, from, true})
		e.hear(message)
		if isNew {
			h.group.Go(func() {
				say(h.stop, func(b []byte) error { _, err := u.WriteToUDPAddrPort(b, from); return err })
			})
		}
	}
}

// call opens a connection from a port of its own to a server, directly or through a Service. If two clients
// had the same port, the kernel would translate one.
func (h *host) call(t *testing.T, ns *netns.NS, proto packet.Protocol, from, to netip.AddrPort) *talk {
	t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}
	if proto == packet.UDP {
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
	}
	var conn net.Conn
	check(t, ns.Do(func() (err error) {
		conn, err = d.DialContext(t.Context(), proto.String(), to.String())
		return err
	}))
	k := &talk{host: h, proto: proto, client: unmap(conn.LocalAddr()), asking: &end{}}
	h.group.Go(func() {
		say(h.stop, writer(conn))
		_ = conn.Close() // ends the reading
	})
	h.group.Go(func() {
		if proto == packet.TCP {
			listenTo(conn, k.asking)
			return
		}
		message := make([]byte, 8)
		for {
			if _, err := conn.Read(message); err == nil {
				k.asking.hear(message)
			} else if errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	return k
}

// giving returns the server's end, or nil if nothing has come there.
func (k *talk) giving() *end {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	return k.host.ends[way{k.proto, k.client, true}]
}

// alive reports whether both ends have received more than before.
func (k *talk) alive(asked, given uint64) bool {
	g := k.giving()
	return g != nil && g.count() > given && k.asking.count() > asked
}

// entered returns the packets that entered the namespaces of both ends.
func (k *talk) entered() (n int, last time.Time) {
	a, b := k.from.of(way{k.proto, k.client, false}), k.to.of(way{k.proto, k.client, true})
	if last = a.last; b.last.After(last) {
		last = b.last
	}
	return a.count + b.count, last
}

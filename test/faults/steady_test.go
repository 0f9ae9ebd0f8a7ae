// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// steady is a flow that must always pass: consecutive numbers over a connection from the peer to the
// victim.
type steady struct {
	network   string
	send      net.Conn
	receive   io.ReadCloser
	sent, got atomic.Uint64
	done      sync.WaitGroup

	mu      sync.Mutex
	wrong   []error
	longest time.Duration // between two arrivals
}

// newSteady opens a connection; the policy must allow it by now.
func (w *world) newSteady(network string, to netip.Addr) *steady {
	w.t.Helper()
	s := &steady{network: network}
	at := netip.AddrPortFrom(to, 7001).String()
	if network == "udp" {
		w.datagrams(s, at)
	} else {
		w.stream(s, at)
	}
	s.done.Go(s.read)
	w.t.Cleanup(func() {
		_, _ = s.send.Close(), s.receive.Close() // the end of the flow may have done it
		s.done.Wait()
	})
	return s
}

func (w *world) stream(s *steady, at string) {
	w.t.Helper()
	l, err := w.ns(victim).Listen(w.t.Context(), "tcp", at)
	check(w.t, err)
	defer l.Close()
	s.send, err = w.ns(peer).Dial(w.t.Context(), "tcp", at)
	check(w.t, err)
	s.receive, err = l.Accept()
	check(w.t, err)
}

// datagrams makes sure that the flow is established: until a reply was seen, a flow that began without our
// table gets a verdict for each packet.
func (w *world) datagrams(s *steady, at string) {
	w.t.Helper()
	var l *net.UDPConn
	check(w.t, w.ns(victim).Do(func() error {
		c, err := net.ListenPacket("udp", at)
		if err == nil {
			l = c.(*net.UDPConn)
			err = enlarge(l)
		}
		return err
	}))
	s.receive = l
	var err error
	s.send, err = w.ns(peer).Dial(w.t.Context(), "udp", at)
	check(w.t, err)
	check(w.t, errors.Join(l.SetReadDeadline(time.Now().Add(patience)), s.send.SetReadDeadline(time.Now().Add(patience))))
	_, err = s.send.Write([]byte("hello"))
	check(w.t, err)
	buf := make([]byte, 8)
	n, from, err := l.ReadFromUDPAddrPort(buf)
	check(w.t, err)
	_, err = l.WriteToUDPAddrPort(buf[:n], from)
	check(w.t, err)
	_, err = s.send.Read(buf)
	check(w.t, errors.Join(err, l.SetReadDeadline(time.Time{})))
}

func enlarge(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) // else the usual size must do
	}))
}

// turn sends the next number.
func (s *steady) turn() {
	_ = s.send.SetWriteDeadline(time.Now().Add(patience))
	if _, err := s.send.Write(binary.BigEndian.AppendUint64(nil, s.sent.Add(1))); err != nil {
		s.fail(fmt.Errorf("sending number %d: %w", s.sent.Load(), err))
	}
}

func (s *steady) read() {
	buf, last := make([]byte, 8), time.Now()
	for {
		if _, err := io.ReadFull(s.receive, buf); err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				s.fail(fmt.Errorf("receiving after number %d: %w", s.got.Load(), err))
			}
			return
		}
		want, number, now := s.got.Load()+1, binary.BigEndian.Uint64(buf), time.Now()
		if number != want {
			s.fail(fmt.Errorf("number %d arrived, want %d", number, want))
		}
		s.got.Store(number)
		s.mu.Lock()
		s.longest = max(s.longest, now.Sub(last))
		s.mu.Unlock()
		last = now
	}
}

func (s *steady) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.wrong) < 5 {
		s.wrong = append(s.wrong, err)
	}
}

// end waits for the last number and checks the flow.
func (s *steady) end(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(patience); s.got.Load() < s.sent.Load() && time.Now().Before(end) &&
		len(s.failures()) == 0; {
		time.Sleep(time.Millisecond)
	}
	again := s.retransmitted()
	_ = errors.Join(s.send.Close(), s.receive.Close()) // what was lost is judged below
	s.done.Wait()
	for _, err := range s.failures() {
		t.Errorf("the %s flow that must pass: %v", s.network, err)
	}
	if s.got.Load() != s.sent.Load() {
		t.Errorf("the %s flow that must pass: %d numbers sent, %d arrived", s.network, s.sent.Load(), s.got.Load())
	}
	return fmt.Sprintf("%s: %d sent, %d arrived, longest gap %v%s", s.network, s.sent.Load(), s.got.Load(),
		s.longest.Round(time.Millisecond), again)
}

func (s *steady) failures() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

// retransmitted returns how many segments TCP retransmitted, which are losses that it hid.
func (s *steady) retransmitted() (text string) {
	c, ok := s.send.(*net.TCPConn)
	if !ok {
		return ""
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			text = fmt.Sprintf(", %d segments sent again", info.Total_retrans)
		}
	})
	return text
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/testkit/stage"
)

// at is an address of an endpoint with a port.
func (w *world) at(t *testing.T, name string, v6 bool, port uint16) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(w.Addr(t, name, v6), port)
}

// udp opens a socket at one of an endpoint's ports, connected if there is a remote end. A read ends when
// the test's patience does.
func (w *world) udp(t *testing.T, name string, local, remote netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	stage.Check(t, w.NS(t, name).Do(func() (err error) {
		if remote.IsValid() {
			c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(local), net.UDPAddrFromAddrPort(remote))
			return err
		}
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
		return err
	}))
	t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	return c
}

// receive reads a datagram that must come.
func receive(t *testing.T, c *net.UDPConn) ([]byte, netip.AddrPort) {
	t.Helper()
	stage.Check(t, c.SetReadDeadline(time.Now().Add(stage.Patience)))
	buf := make([]byte, 65536)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("receiving at %s: %v", c.LocalAddr(), err)
	}
	return buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// send sends a datagram. A drop by a rule of the sender's own node is no error.
func send(t *testing.T, c *net.UDPConn, b []byte, to netip.AddrPort) {
	t.Helper()
	var err error
	if c.RemoteAddr() != nil {
		_, err = c.Write(b)
	} else {
		_, err = c.WriteToUDPAddrPort(b, to)
	}
	if err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatalf("sending from %s: %v", c.LocalAddr(), err)
	}
}

// option sets a socket's option.
func option(t *testing.T, c syscall.Conn, level, name, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	stage.Check(t, err)
	var set error
	stage.Check(t, raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), level, name, value) }))
	stage.Check(t, set)
}

// read returns a socket's option.
func read(t *testing.T, c syscall.Conn, level, name int) (value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	stage.Check(t, err)
	var got error
	stage.Check(t, raw.Control(func(fd uintptr) { value, got = unix.GetsockoptInt(int(fd), level, name) }))
	stage.Check(t, got)
	return value
}

// listen opens a listener in an endpoint.
func (w *world) listen(t *testing.T, name string, local netip.AddrPort) net.Listener {
	t.Helper()
	l, err := w.NS(t, name).Listen(t.Context(), "tcp", local.String())
	stage.Check(t, err)
	t.Cleanup(func() { _ = l.Close() }) // a test may have closed it
	return l
}

// dial connects from an endpoint and waits at most for patience.
func (w *world) dial(t *testing.T, name string, from, to netip.AddrPort) (c *net.TCPConn, err error) {
	t.Helper()
	err = w.NS(t, name).Do(func() error {
		d := net.Dialer{Timeout: stage.Patience}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
		}
		conn, err := d.DialContext(t.Context(), "tcp", to.String())
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	if err == nil {
		t.Cleanup(func() { _ = c.Close() }) // a test may have closed it
	}
	return c, err
}

// connect dials and accepts, and wants both to succeed.
func (w *world) connect(t *testing.T, name string, to netip.AddrPort, l net.Listener) (client, server *net.TCPConn) {
	t.Helper()
	client, err := w.dial(t, name, netip.AddrPort{}, to)
	if err != nil {
		t.Fatalf("connecting from %s to %s: %v", name, to, err)
	}
	stage.Check(t, l.(*net.TCPListener).SetDeadline(time.Now().Add(stage.Patience)))
	conn, err := l.Accept()
	stage.Check(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // a test may have closed it
	return client, conn.(*net.TCPConn)
}

// carries wants a number of bytes to pass over a connection in one direction.
func carries(t *testing.T, from, to net.Conn, size int) {
	t.Helper()
	stage.Check(t, errors.Join(from.SetWriteDeadline(time.Now().Add(stage.Patience)),
		to.SetReadDeadline(time.Now().Add(stage.Patience))))
	written := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, size))
		written <- err
	}()
	n, err := io.CopyN(io.Discard, to, int64(size))
	if err := errors.Join(err, <-written); err != nil {
		t.Fatalf("%d of %d bytes from %s to %s: %v", n, size, from.LocalAddr(), to.LocalAddr(), err)
	}
}

// bindTo lets a socket send over one link only.
func (w *world) bindTo(t *testing.T, c syscall.Conn, device string) {
	t.Helper()
	raw, err := c.SyscallConn()
	stage.Check(t, err)
	var set error
	stage.Check(t, raw.Control(func(fd uintptr) { set = unix.BindToDevice(int(fd), device) }))
	stage.Check(t, set)
}

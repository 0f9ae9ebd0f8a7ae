// SPDX-License-Identifier: Apache-2.0

//go:build linux

package socket

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
)

// asked is one target and the socket of its question, which is open while there is no outcome.
type asked struct {
	target  connect.Target
	fd      int
	outcome connect.Outcome
	err     error // of an outcome that is a failure
}

// begin opens the socket of a target and sends the first packet.
func begin(t connect.Target) *asked {
	a := &asked{target: t, fd: -1}
	domain, kind := unix.AF_INET, unix.SOCK_STREAM
	if t.To.Addr().Is6() {
		domain = unix.AF_INET6
	}
	if t.Protocol == inet.UDP {
		kind = unix.SOCK_DGRAM
	}
	var err error
	a.fd, err = unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(t.Protocol))
	if err != nil {
		a.fd = -1
		a.fail(err, icmp{})
		return a
	}
	if err = a.wantErrors(domain); err == nil {
		err = unix.Connect(a.fd, sockaddr(t.To))
	}
	switch {
	case errors.Is(err, unix.EINPROGRESS):
	case err != nil:
		a.fail(err, icmp{})
	case t.Protocol == inet.UDP:
		a.repeat()
	default:
		a.end(connect.Connected)
	}
	return a
}

// wantErrors has the kernel keep ICMP errors with their senders. SCTP keeps none: its errors stay
// the kernel's affair, which sends again.
func (a *asked) wantErrors(domain int) error {
	switch {
	case a.target.Protocol == inet.SCTP:
		return nil
	case domain == unix.AF_INET6:
		return unix.SetsockoptInt(a.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1)
	}
	return unix.SetsockoptInt(a.fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1)
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
}

// events are what to wait for.
func (a *asked) events() int16 {
	if a.target.Protocol == inet.UDP {
		return unix.POLLIN
	}
	return unix.POLLOUT
}

// repeat sends a datagram, again if it is not the first; TCP and SCTP do so by themselves.
func (a *asked) repeat() {
	if a.target.Protocol != inet.UDP {
		return
	}
	if _, err := unix.Write(a.fd, []byte(question)); err != nil && !errors.Is(err, unix.EAGAIN) {
		a.fail(err, a.icmpError())
	}
}

// news reads what poll reports.
func (a *asked) news(what int16) {
	if a.target.Protocol == inet.UDP {
		a.datagram()
		return
	}
	number, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && number != 0 {
		err = unix.Errno(number)
	}
	queued := a.icmpError()
	switch {
	case err != nil:
		a.fail(err, queued)
	case what&unix.POLLOUT != 0:
		a.end(connect.Connected)
	}
}

// datagram reads an answer by UDP, or why none comes.
func (a *asked) datagram() {
	var b [1]byte // the rest of the datagram does not matter
	switch _, err := unix.Read(a.fd, b[:]); {
	case err == nil:
		a.end(connect.Answered)
	case errors.Is(err, unix.EAGAIN):
		if queued := a.icmpError(); queued.errno != 0 {
			a.fail(queued.errno, queued)
		}
	default:
		a.fail(err, a.icmpError())
	}
}

func (a *asked) fail(err error, queued icmp) {
	outcome := outcomeOf(a.target, err, queued)
	if outcome == connect.Failed && a.outcome == "" {
		a.err = err
	}
	a.end(outcome)
}

// end settles the outcome and closes the socket, unless it is settled.
func (a *asked) end(o connect.Outcome) {
	if a.outcome != "" {
		return
	}
	a.outcome = o
	if a.fd >= 0 {
		_ = unix.Close(a.fd) // nothing is left to be written
	}
}

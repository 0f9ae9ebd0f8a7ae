// SPDX-License-Identifier: Apache-2.0

//go:build linux

package socket

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/connect"
	"github.com/podwall/podwall/internal/inet"
)

// icmp is an error that the kernel keeps for a socket. The zero value is none.
type icmp struct {
	errno    unix.Errno
	origin   uint8
	kind     uint8 // its type
	code     uint8
	offender netip.Addr // who sent it
}

// received reports whether it is an ICMP error of another host, and not the kernel's own.
func (i icmp) received() bool {
	return i.origin == unix.SO_EE_ORIGIN_ICMP || i.origin == unix.SO_EE_ORIGIN_ICMP6
}

// The ICMP error "destination unreachable" of both families, and the codes of it that firewalls send.
const (
	unreachable    = 3
	netProhibited  = 9
	hostProhibited = 10
	filtered       = 13
	unreachable6   = 1
	prohibited6    = 1
	sourcePolicy6  = 5
	rejectRoute6   = 6
)

// extendedErrorLen is the length of a sock_extended_err.
const extendedErrorLen = 16

// prohibited reports whether a firewall says that it lets nothing through.
func (i icmp) prohibited() bool {
	switch {
	case i.origin == unix.SO_EE_ORIGIN_ICMP && i.kind == unreachable:
		return slices.Contains([]uint8{netProhibited, hostProhibited, filtered}, i.code)
	case i.origin == unix.SO_EE_ORIGIN_ICMP6 && i.kind == unreachable6:
		return slices.Contains([]uint8{prohibited6, sourcePolicy6, rejectRoute6}, i.code)
	}
	return false
}

// outcomeOf says what an error of a socket means. A kernel refuses TCP and SCTP by packets of their
// own: an ICMP error "port unreachable" about them is a firewall's. About UDP it is a kernel's without
// a listener, if it comes from the destination.
func outcomeOf(t connect.Target, err error, queued icmp) connect.Outcome {
	is := func(list ...error) bool {
		return slices.ContainsFunc(list, func(e error) bool { return errors.Is(err, e) })
	}
	switch {
	case queued.received() && queued.prohibited():
		return connect.Rejected
	case is(unix.ECONNREFUSED) && queued.received() && t.Protocol != inet.UDP:
		return connect.Rejected
	case is(unix.ECONNREFUSED) && queued.received() && queued.offender != t.To.Addr():
		return connect.Rejected
	case is(unix.ECONNREFUSED) && (queued.received() || t.Protocol != inet.UDP):
		return connect.Refused
	case is(unix.ETIMEDOUT):
		return connect.Silent
	case is(unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN, unix.EHOSTDOWN, unix.EADDRNOTAVAIL):
		return connect.Unreachable
	case is(unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT, unix.EAFNOSUPPORT):
		return connect.Unsupported
	}
	return connect.Failed
}

// icmpError takes the oldest error that the kernel keeps for the socket.
func (a *asked) icmpError() icmp {
	oob := make([]byte, unix.CmsgSpace(extendedErrorLen+unix.SizeofSockaddrInet6))
	var payload [1]byte
	_, n, _, _, err := unix.Recvmsg(a.fd, payload[:], oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if err != nil { // there is none
		return icmp{}
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return icmp{}
	}
	for _, m := range messages {
		v4 := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR
		v6 := m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(m.Data) >= extendedErrorLen {
			return parseError(m.Data)
		}
	}
	return icmp{}
}

// parseError reads a sock_extended_err and the address behind it.
func parseError(b []byte) icmp {
	i := icmp{errno: unix.Errno(binary.NativeEndian.Uint32(b)), origin: b[4], kind: b[5], code: b[6]}
	address := b[extendedErrorLen:]
	if len(address) < 2 {
		return i
	}
	switch family := binary.NativeEndian.Uint16(address); {
	case family == unix.AF_INET && len(address) >= 8:
		i.offender, _ = netip.AddrFromSlice(address[4:8])
	case family == unix.AF_INET6 && len(address) >= 24:
		i.offender, _ = netip.AddrFromSlice(address[8:24])
	}
	return i
}

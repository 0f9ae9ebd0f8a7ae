// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tables

import (
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/tracked"
)

func addressPort(net, host int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(address(inet.IPv4, net, host), port)
}

// connect puts a connection from that port of a client into the table, which NAT leads to the backend. One
// that is led nowhere is being opened.
func (s *stage) connect(client uint16, p inet.Protocol, to, backend netip.AddrPort) {
	s.t.Helper()
	check(s.t, tracked.Put(s.ns, tracked.Connection{Protocol: p, Client: addressPort(2, 200, client), Front: to,
		Backend: backend}))
}

// balance puts one into the table as IPVS does: the reply comes from the backend, and NAT has no part in it.
func (s *stage) balance(client uint16, p inet.Protocol, to, backend netip.AddrPort) {
	s.t.Helper()
	check(s.t, tracked.Put(s.ns, tracked.Connection{Protocol: p, Client: addressPort(2, 200, client), Front: to,
		Backend: backend, Balanced: true}))
}

// clients returns the ports of the clients that have connections.
func (s *stage) clients() (ports []uint16) {
	s.t.Helper()
	check(s.t, s.ns.Do(func() error {
		list, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range list {
			ports = append(ports, f.Forward.SrcPort)
		}
		return err
	}))
	slices.Sort(ports)
	return ports
}

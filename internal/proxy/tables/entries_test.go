// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tables

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

func addressPort(net, host int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(address(inet.IPv4, net, host), port)
}

// Constants of linux/netfilter/nfnetlink_conntrack.h that package nl does not have.
const natDst, natProto, natMinPort, natMaxPort = 13, 3, 1, 2

// connect puts a connection from that port of a client into the table, which NAT leads to the backend. One
// that is led nowhere is being opened.
func (s *stage) connect(client uint16, p inet.Protocol, to, backend netip.AddrPort) {
	s.t.Helper()
	dnat := nl.NewRtAttr(natDst|unix.NLA_F_NESTED, nil)
	for _, end := range []int{1, 2} { // the first and the last address
		dnat.AddRtAttr(end, backend.Addr().AsSlice())
	}
	ports := dnat.AddRtAttr(natProto|unix.NLA_F_NESTED, nil)
	for _, end := range []int{natMinPort, natMaxPort} {
		ports.AddRtAttr(end, binary.BigEndian.AppendUint16(nil, backend.Port()))
	}
	if backend == to {
		s.create(client, p, to, to)
		return
	}
	s.create(client, p, to, to, dnat)
}

// balance puts one into the table as IPVS does: the reply comes from the backend, and NAT has no part in it.
func (s *stage) balance(client uint16, p inet.Protocol, to, backend netip.AddrPort) {
	s.t.Helper()
	s.create(client, p, to, backend)
}

func (s *stage) create(client uint16, p inet.Protocol, to, answers netip.AddrPort, more ...*nl.RtAttr) {
	s.t.Helper()
	from := addressPort(2, 200, client)
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET})
	request.AddData(tuple(nl.CTA_TUPLE_ORIG, p, from, to))
	request.AddData(tuple(nl.CTA_TUPLE_REPLY, p, answers, from))
	request.AddData(nl.NewRtAttr(nl.CTA_TIMEOUT, binary.BigEndian.AppendUint32(nil, 600)))
	if p == inet.TCP {
		state := byte(nl.TCP_CONNTRACK_ESTABLISHED)
		if answers == to && len(more) == 0 {
			state = nl.TCP_CONNTRACK_SYN_SENT
		}
		info := nl.NewRtAttr(nl.CTA_PROTOINFO|unix.NLA_F_NESTED, nil)
		info.AddRtAttr(nl.CTA_PROTOINFO_TCP|unix.NLA_F_NESTED, nil).
			AddRtAttr(nl.CTA_PROTOINFO_TCP_STATE, []byte{state})
		request.AddData(info)
	}
	for _, a := range more {
		request.AddData(a)
	}
	check(s.t, s.ns.Do(func() error {
		_, err := request.Execute(unix.NETLINK_NETFILTER, 0)
		return err
	}))
}

func tuple(kind int, p inet.Protocol, src, dst netip.AddrPort) *nl.RtAttr {
	t := nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil)
	ip := t.AddRtAttr(nl.CTA_TUPLE_IP|unix.NLA_F_NESTED, nil)
	ip.AddRtAttr(nl.CTA_IP_V4_SRC, src.Addr().AsSlice())
	ip.AddRtAttr(nl.CTA_IP_V4_DST, dst.Addr().AsSlice())
	ports := t.AddRtAttr(nl.CTA_TUPLE_PROTO|unix.NLA_F_NESTED, nil)
	ports.AddRtAttr(nl.CTA_PROTO_NUM, []byte{byte(p)})
	ports.AddRtAttr(nl.CTA_PROTO_SRC_PORT, binary.BigEndian.AppendUint16(nil, src.Port()))
	ports.AddRtAttr(nl.CTA_PROTO_DST_PORT, binary.BigEndian.AppendUint16(nil, dst.Port()))
	return t
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

// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package tracked puts connections of Services into the connection table of a network namespace, without any packet,
// and tells when they end there. It owns the socket that it listens with, and nothing in the table.
package tracked

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/netns"
)

// Connection is one of a client.
type Connection struct {
	Protocol inet.Protocol
	// Client sends to Front, and Backend answers. Of a connection that is led nowhere both are the same.
	Client, Front, Backend netip.AddrPort
	// Balanced says that IPVS leads it: NAT has no part in it.
	Balanced bool
}

// Constants of linux/netfilter/nfnetlink_conntrack.h that package nl does not have.
const natDst, natProto, natMinPort, natMaxPort = 13, 3, 1, 2

// lifetime is how many seconds a connection lives.
const lifetime = 600

// Put puts a connection into the table. One of TCP is established, or is being opened if it is led nowhere.
func Put(ns *netns.NS, c Connection) error {
	answers := c.Front
	if c.Balanced {
		answers = c.Backend
	}
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET})
	request.AddData(tuple(nl.CTA_TUPLE_ORIG, c.Protocol, c.Client, c.Front))
	request.AddData(tuple(nl.CTA_TUPLE_REPLY, c.Protocol, answers, c.Client))
	request.AddData(nl.NewRtAttr(nl.CTA_TIMEOUT, binary.BigEndian.AppendUint32(nil, lifetime)))
	if c.Protocol == inet.TCP {
		state := byte(nl.TCP_CONNTRACK_ESTABLISHED)
		if c.Backend == c.Front {
			state = nl.TCP_CONNTRACK_SYN_SENT
		}
		info := nl.NewRtAttr(nl.CTA_PROTOINFO|unix.NLA_F_NESTED, nil)
		info.AddRtAttr(nl.CTA_PROTOINFO_TCP|unix.NLA_F_NESTED, nil).
			AddRtAttr(nl.CTA_PROTOINFO_TCP_STATE, []byte{state})
		request.AddData(info)
	}
	if !c.Balanced && c.Backend != c.Front {
		request.AddData(translation(c.Backend))
	}
	return ns.Do(func() error {
		_, err := request.Execute(unix.NETLINK_NETFILTER, 0)
		return err
	})
}

// translation has NAT lead to the backend.
func translation(to netip.AddrPort) *nl.RtAttr {
	dnat := nl.NewRtAttr(natDst|unix.NLA_F_NESTED, nil)
	for _, end := range []int{1, 2} { // the first and the last address
		dnat.AddRtAttr(end, to.Addr().AsSlice())
	}
	ports := dnat.AddRtAttr(natProto|unix.NLA_F_NESTED, nil)
	for _, end := range []int{natMinPort, natMaxPort} {
		ports.AddRtAttr(end, binary.BigEndian.AppendUint16(nil, to.Port()))
	}
	return dnat
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

// Ends tells of connections that end.
type Ends struct{ conn *netlink.Conn }

// Watch begins to listen. The caller must Close it.
func Watch(ns *netns.NS) (*Ends, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD(),
		Groups: 1 << (unix.NFNLGRP_CONNTRACK_DESTROY - 1)})
	if err != nil {
		return nil, fmt.Errorf("listening to the connection table: %w", err)
	}
	return &Ends{conn}, nil
}

// Close ends the listening.
func (e *Ends) Close() error { return e.conn.Close() }

// Next returns the client's ports of connections that ended since the last call, and waits for one until then.
func (e *Ends) Next(until time.Time) (ports []uint16, err error) {
	if err := e.conn.SetReadDeadline(until); err != nil {
		return nil, fmt.Errorf("setting the time to wait: %w", err)
	}
	list, err := e.conn.Receive()
	if err != nil {
		return nil, fmt.Errorf("listening to the connection table: %w", err)
	}
	for _, m := range list {
		const header = 4 // struct nfgenmsg
		if len(m.Data) < header {
			return nil, errors.New("a message of the connection table is too short")
		}
		if err := clientPort(m.Data[header:], &ports); err != nil {
			return nil, fmt.Errorf("reading a message of the connection table: %w", err)
		}
	}
	return ports, nil
}

// clientPort appends the source port of a connection's first packet; protocols without ports have none.
func clientPort(attributes []byte, ports *[]uint16) error {
	d, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return err
	}
	d.ByteOrder = binary.BigEndian
	for d.Next() {
		if d.Type() != nl.CTA_TUPLE_ORIG {
			continue
		}
		d.Nested(func(d *netlink.AttributeDecoder) error {
			for d.Next() {
				if d.Type() == nl.CTA_TUPLE_PROTO {
					d.Nested(func(d *netlink.AttributeDecoder) error {
						for d.Next() {
							if d.Type() == nl.CTA_PROTO_SRC_PORT {
								*ports = append(*ports, d.Uint16())
							}
						}
						return nil
					})
				}
			}
			return nil
		})
	}
	return d.Err()
}

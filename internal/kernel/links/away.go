// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// away reads the peers of veth and netkit pairs from the network namespaces where they are, without
// entering them. It connects at the first request.
type away struct{ conn *netlink.Conn }

var errNoHardware = errors.New("the other end has no hardware address")

func (w *away) close() error {
	if w.conn == nil {
		return nil
	}
	return w.conn.Close()
}

// ask sends a request about the peer of a pair to its namespace, which attr names.
func (w *away) ask(
	kind netlink.HeaderType, flags netlink.HeaderFlags, head []byte, attr uint16, netns int,
) ([]netlink.Message, error) {
	if w.conn == nil {
		conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Strict: true})
		if err != nil {
			return nil, fmt.Errorf("connecting to rtnetlink: %w", err)
		}
		w.conn = conn
	}
	ae := netlink.NewAttributeEncoder()
	ae.Int32(attr, int32(netns))
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	return w.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request | flags}, Data: append(head, attrs...)})
}

// addresses lists the addresses of the peer, except link-local ones (kernel 4.20, IFA_TARGET_NETNSID).
func (w *away) addresses(d device) (list []netip.Addr, err error) {
	const targetNetnsID = 10
	head := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(head[4:], uint32(d.peer))
	messages, err := w.ask(unix.RTM_GETADDR, netlink.Dump, head, targetNetnsID, d.netns)
	for _, m := range messages {
		if a, ok := addressOf(m.Data); ok {
			list = append(list, a)
		}
	}
	return list, err
}

// has reports whether the peer currently has the address.
func (w *away) has(d device, a netip.Addr) bool {
	addrs, err := w.addresses(d)
	return err == nil && slices.Contains(addrs, a)
}

// hardware returns the hardware address of the peer (kernel 4.15, IFLA_TARGET_NETNSID).
func (w *away) hardware(d device) (h inet.Hardware, err error) {
	head := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(head[4:], uint32(d.peer))
	messages, err := w.ask(unix.RTM_GETLINK, 0, head, unix.IFLA_TARGET_NETNSID, d.netns)
	if err != nil {
		return h, err
	}
	for _, m := range messages {
		if h, ok := hardwareOf(m.Data); ok {
			return h, nil
		}
	}
	return h, errNoHardware
}

// hardwareOf reads the hardware address of a message about an interface.
func hardwareOf(data []byte) (h inet.Hardware, ok bool) {
	if len(data) < unix.SizeofIfInfomsg {
		return h, false
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return h, false
	}
	for ad.Next() {
		if ad.Type() == unix.IFLA_ADDRESS {
			h, ok = inet.HardwareFrom(ad.Bytes())
		}
	}
	return h, ok && ad.Err() == nil
}

// addressOf reads the address of a notification. On a point-to-point link IFA_LOCAL is the interface's own
// address; IPv6 has only IFA_ADDRESS.
func addressOf(data []byte) (found netip.Addr, ok bool) {
	if len(data) < unix.SizeofIfAddrmsg {
		return found, false
	}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return found, false
	}
	for ad.Next() {
		local := ad.Type() == unix.IFA_LOCAL
		if a, valid := netip.AddrFromSlice(ad.Bytes()); valid && (local || ad.Type() == unix.IFA_ADDRESS && !ok) {
			found, ok = a, true
		}
	}
	return found, ok && ad.Err() == nil && !found.IsLinkLocalUnicast()
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ports knows which addresses are behind which port of a bridge. It asks the
// kernel for the addresses of the port's other end, in the network namespace
// of the pod. That is what the pod network set up there; what pods say on the
// wire (ARP) is not asked, since they may lie.
type ports struct {
	// of are the addresses behind each port; a port keeps what it had first.
	of map[device][]netip.Addr
}

// find returns the port of each address that is behind one. Ports whose
// addresses were found before are not asked again.
func (p *ports) find(devices map[int]device, wanted map[netip.Addr]bool) (map[netip.Addr]string, error) {
	now := map[device]bool{}
	for _, d := range devices {
		if d.master != 0 && d.away && pair(d.kind) {
			now[d] = true
		}
	}
	maps.DeleteFunc(p.of, func(d device, _ []netip.Addr) bool { return !now[d] })
	found := map[netip.Addr]string{}
	for d, addrs := range p.of {
		for _, a := range addrs {
			found[a] = d.name
		}
	}
	for a := range found {
		delete(wanted, a)
	}
	if len(wanted) == 0 {
		return found, nil
	}
	return found, p.ask(now, found)
}

// ask asks the ports that nothing is known about.
func (p *ports) ask(all map[device]bool, found map[netip.Addr]string) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Strict: true})
	if err != nil {
		return fmt.Errorf("connecting to rtnetlink: %w", err)
	}
	defer func() { _ = conn.Close() }() // it only asked
	older := func(a, b device) int { return cmp.Compare(a.index, b.index) }
	for _, d := range slices.SortedFunc(maps.Keys(all), older) {
		if len(p.of[d]) > 0 {
			continue
		}
		addrs, err := addressesAway(conn, d.netns, d.peer)
		if err != nil {
			continue // it is going away; the kernel will tell
		}
		for _, a := range addrs {
			if _, taken := found[a]; !taken {
				found[a] = d.name
				p.of[d] = append(p.of[d], a)
			}
		}
	}
	return nil
}

// addressesAway lists the addresses of an interface in the namespace with that
// id (kernel 4.20, IFA_TARGET_NETNSID).
func addressesAway(conn *netlink.Conn, netns, index int) ([]netip.Addr, error) {
	const header, targetNetnsID = unix.SizeofIfAddrmsg, 10
	ae := netlink.NewAttributeEncoder()
	ae.Int32(targetNetnsID, int32(netns))
	attrs, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	head := make([]byte, header)
	binary.NativeEndian.PutUint32(head[4:], uint32(index))
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
		Data:   append(head, attrs...),
	})
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, m := range messages {
		if a, ok := addressOf(m.Data); ok {
			list = append(list, a)
		}
	}
	return list, nil
}

// addressOf reads the address of a notification. On a point-to-point link
// IFA_LOCAL is the interface's own; IPv6 has IFA_ADDRESS only.
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

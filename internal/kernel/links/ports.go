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
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
)

// ports knows which addresses are behind which port of a bridge. It asks the
// kernel for the addresses of the port's other end, in the network namespace
// of the pod. That is what the pod network set up there; what pods say on the
// wire (ARP) is not asked, since they may lie.
type ports struct {
	// of are the addresses behind each port. A port keeps what it had first; later
	// it gets only further addresses of a pod that it has an address of already.
	of   map[port][]netip.Addr
	sole sole
	// tried says when the port of a pod was asked for a further address in vain.
	tried map[netip.Addr]time.Time
}

func newPorts() ports {
	return ports{of: map[port][]netip.Addr{}, tried: map[netip.Addr]time.Time{},
		sole: sole{at: map[netip.Addr]port{}, tried: map[netip.Addr]time.Time{}, unclear: map[netip.Addr]string{}}}
}

// port is one end of a pair that is a bridge's port, as long as its other end stays
// where it is.
type port struct{ index, netns, peer int }

func older(a, b port) int { return cmp.Compare(a.index, b.index) }

// portsOf returns the ports that pods may be behind.
func portsOf(devices map[int]device) map[port]device {
	now := map[port]device{}
	for _, d := range devices {
		if d.master != 0 && d.away && pair(d.kind) {
			now[portOf(d)] = d
		}
	}
	return now
}

func portOf(d device) port { return port{d.index, d.netns, d.peer} }

// find returns the port of each address that is behind one. The ports are asked
// only if pods that a bridge leads to, as the paths say, have none yet: those of
// which nothing is known, and those that have another address of the same pod.
func (p *ports) find(devices map[int]device, pods []Pod, paths map[netip.Addr]inet.Path) (map[netip.Addr]device, error) {
	now := portsOf(devices)
	maps.DeleteFunc(p.of, func(at port, _ []netip.Addr) bool { _, stays := now[at]; return !stays })
	found := map[netip.Addr]device{}
	for at, addrs := range p.of {
		for _, a := range addrs {
			if now[at].mayHave(a, paths) {
				found[a] = now[at]
			}
		}
	}
	wanted := func(pod Pod) bool {
		_, has := found[pod.Addr]
		return paths[pod.Addr].Bridge && !has
	}
	if !slices.ContainsFunc(pods, wanted) {
		return found, nil
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Strict: true})
	if err != nil {
		return found, fmt.Errorf("connecting to rtnetlink: %w", err)
	}
	defer func() { _ = conn.Close() }() // it only asked
	p.ask(conn, now, paths, found)
	bound, tried := boundTo(pods, found), map[netip.Addr]time.Time{}
	for _, pod := range pods {
		if !wanted(pod) {
			continue
		}
		if last := p.tried[pod.Addr]; time.Since(last) < askEach {
			tried[pod.Addr] = last
		} else if at := bound[nameOf(pod)]; len(at) > 0 && !p.askAgain(conn, pod, at, paths, found) {
			tried[pod.Addr] = time.Now()
		}
	}
	p.tried = tried
	return found, nil
}

// mayHave reports whether no route leads to the address elsewhere than over the
// bridge that has this port. What a pod can edit does not count against a route.
func (d device) mayHave(a netip.Addr, paths map[netip.Addr]inet.Path) bool {
	path, routed := paths[a]
	return !routed || path.Index == d.master
}

// ask asks the ports that nothing is known about.
func (p *ports) ask(conn *netlink.Conn, all map[port]device, paths map[netip.Addr]inet.Path, found map[netip.Addr]device) {
	for _, at := range slices.SortedFunc(maps.Keys(all), older) {
		if len(p.of[at]) > 0 {
			continue
		}
		addrs, err := addressesAway(conn, at.netns, at.peer)
		if err != nil {
			continue // it is going away; the kernel will tell
		}
		for _, a := range addrs {
			if _, taken := found[a]; !taken && all[at].mayHave(a, paths) {
				found[a] = all[at]
				p.of[at] = append(p.of[at], a)
			}
		}
	}
}

// askAgain looks for an address that a pod got later than its others, at the
// ports that have one of those, and reports whether one has it. No other port can
// claim it.
func (p *ports) askAgain(conn *netlink.Conn, pod Pod, bound []device, paths map[netip.Addr]inet.Path, found map[netip.Addr]device) bool {
	for _, d := range bound {
		if !d.mayHave(pod.Addr, paths) {
			continue
		}
		at := portOf(d)
		if addrs, err := addressesAway(conn, at.netns, at.peer); err == nil && slices.Contains(addrs, pod.Addr) {
			found[pod.Addr] = d
			p.of[at] = append(p.of[at], pod.Addr)
			return true
		}
	}
	return false
}

// nameOf returns what the addresses of one pod have in common.
func nameOf(pod Pod) Pod { return Pod{Name: pod.Name, ID: pod.ID} }

// boundTo returns the ports that each pod has an address at already.
func boundTo(pods []Pod, found map[netip.Addr]device) map[Pod][]device {
	bound := map[Pod][]device{}
	for _, pod := range pods {
		if d, ok := found[pod.Addr]; ok && !slices.Contains(bound[nameOf(pod)], d) {
			bound[nameOf(pod)] = append(bound[nameOf(pod)], d)
		}
	}
	return bound
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

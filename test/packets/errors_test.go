// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// narrow is the largest packet that node2 forwards to yonder, in bytes.
const narrow = 1300

// narrowPath makes node2 a router before a narrow link.
func (w *world) narrowPath(t *testing.T, v6 bool) {
	t.Helper()
	h, link := w.toPod(t, yonder)
	stage.Check(t, h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: single(w.Addr(t, yonder, v6)), Scope: netlink.SCOPE_LINK, MTU: narrow}))
}

// deadEnd is an address behind node2 that node2 calls unreachable.
func (w *world) deadEnd(t *testing.T, v6 bool) netip.Addr {
	t.Helper()
	a := stage.Pick(v6, "fd00:244:2::99", "10.244.2.99")
	h, link := w.link(t, node1, "eth0")
	stage.Check(t, h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: single(a), Gw: w.Addr(t, node2, v6).AsSlice()}))
	stage.Check(t, w.Handle(t, node2).RouteReplace(&netlink.Route{Dst: single(a), Type: unix.RTN_UNREACHABLE}))
	return a
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// mayLeave closes the victim in both directions, except for what it sends to node2 and the pods there.
func (w *world) mayLeave(t *testing.T) {
	t.Helper()
	w.denyAll(t, stage.Policy("out", "victim", `policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.244.2.0/24}}, {ipBlock: {cidr: "fd00:244:2::/64"}}]}]`))
}

// names are a family's socket options, and an error.
type names struct {
	level, errors, discover, path, hops int
	noWay                               error // what a router's unreachable route becomes
}

func optionsOf(v6 bool) names {
	if v6 {
		return names{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, unix.IPV6_UNICAST_HOPS, unix.ENETUNREACH}
	}
	return names{unix.IPPROTO_IP, unix.IP_RECVERR, unix.IP_MTU_DISCOVER, unix.IP_MTU, unix.IP_TTL, unix.EHOSTUNREACH}
}

// The victim accepts no connection: the errors belong to its own flows.
func TestErrorsAboutAnAllowedFlowReachAnIsolatedPod(t *testing.T) {
	eachDatapath(t, func(t *testing.T, w *world) {
		w.mayLeave(t)
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.narrowPath(t, v6)
			o, before := optionsOf(v6), w.Counters(t)
			for i, e := range []struct {
				name string
				to   netip.Addr
				size int
				hops int
				want error
			}{
				{"the port is closed", w.Addr(t, yonder, v6), 10, 64, unix.ECONNREFUSED},
				{"the packet is too big", w.Addr(t, yonder, v6), 1400, 64, unix.EMSGSIZE},
				{"there is no way", w.deadEnd(t, v6), 10, 64, o.noWay},
				{"the hops are used up", w.Addr(t, yonder, v6), 10, 2, unix.EHOSTUNREACH},
			} {
				c := w.udp(t, victim, w.at(t, victim, v6, 3000+uint16(i)), netip.AddrPortFrom(e.to, 9000))
				option(t, c, o.level, o.errors, 1)
				option(t, c, o.level, o.discover, unix.IP_PMTUDISC_DO)
				option(t, c, o.level, o.hops, e.hops)
				send(t, c, make([]byte, e.size), netip.AddrPort{})
				stage.Check(t, c.SetReadDeadline(time.Now().Add(stage.Patience)))
				if _, err := c.Read(make([]byte, 10)); !errors.Is(err, e.want) {
					t.Errorf("%s: the pod's socket says %v, want %v", e.name, err, e.want)
				}
				if mtu := read(t, c, o.level, o.path); e.size > narrow && mtu != narrow {
					t.Errorf("the pod thinks that the path takes %d bytes, want %d", mtu, narrow)
				}
			}
			w.Moved(t, "errors of allowed flows", before, stage.Drops{})
		})
	})
}

func TestALargeTransferOfAnIsolatedPodLearnsTheSizeOfThePath(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.mayLeave(t)
		stage.Families(t, func(t *testing.T, v6 bool) {
			w.narrowPath(t, v6)
			to := w.at(t, yonder, v6, 9000)
			client, server := w.connect(t, victim, to, w.listen(t, yonder, to))
			carries(t, client, server, 300_000)
			carries(t, server, client, 300_000)
			if mtu := read(t, client, optionsOf(v6).level, optionsOf(v6).path); mtu != narrow {
				t.Errorf("the connection thinks that the path takes %d bytes, want %d", mtu, narrow)
			}
		})
	})
}

// errorKinds are the types and codes of messages about a packet.
func errorKinds(v6 bool) [][2]uint8 {
	if v6 {
		return [][2]uint8{{1, 0}, {1, 1}, {1, 3}, {1, 4}, {2, 0}, {3, 0}, {4, 0}}
	}
	return [][2]uint8{{3, 0}, {3, 1}, {3, 3}, {3, 4}, {3, 13}, {11, 0}, {12, 0}}
}

func TestErrorsAboutNoFlowAreDropped(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		stage.Families(t, func(t *testing.T, v6 bool) {
			for _, from := range []string{near, far, out} {
				var list []stage.Shot
				for _, k := range errorKinds(v6) {
					about := packet.Packet{Src: w.Addr(t, victim, v6), Dst: w.Addr(t, yonder, v6), Proto: packet.UDP,
						SrcPort: 3100, DstPort: 9000, Payload: w.Marks.Next()}
					b := stage.ICMP(w.Addr(t, from, v6), about.Src, k[0], k[1], 64, narrow, about.Bytes())
					list = append(list, w.Bytes(fmt.Sprintf("error %d.%d", k[0], k[1]), from, victim, about.Src, about.Payload, b))
				}
				w.Stopped(t, stage.Drops{ruleset.CounterInvalid: uint64(len(list))}, list...)
			}
		})
	})
}

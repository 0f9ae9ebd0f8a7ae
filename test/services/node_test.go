// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/proxy/ipvs/host"
	"github.com/podwall/podwall/internal/proxy/oracle"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
)

// node is a network namespace with the tables of the proxy and one device.
type node struct {
	ns     *netns.NS
	handle *netlink.Handle
	device netlink.Link
	tunnel int                 // the other end of the device
	raw    map[inet.Family]int // sockets of the node that send whole packets
	tables map[inet.Family]*table
	addrs  []netip.Addr // of the node
	last   uint32       // the number of the last packet

	ipvs    *host.Proxy // serves by IPVS; nil: by the tables alone
	context context.Context
}

// table is the table of a family, and what is in it.
type table struct {
	conn     *nft.Conn
	renderer ruleset.Renderer
	actual   *nft.Table
	program  *program.Program
}

func check(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fataler is a test, also one of package rapid.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newNode(t *testing.T) *node {
	t.Helper()
	ns, err := netns.New()
	check(t, err)
	t.Cleanup(func() { check(t, ns.Close()) })
	n := &node{ns: ns, raw: map[inet.Family]int{}, tables: map[inet.Family]*table{}, context: t.Context()}
	check(t, ns.Do(n.openSockets))
	t.Cleanup(func() {
		for _, fd := range []int{n.tunnel, n.raw[inet.IPv4], n.raw[inet.IPv6]} {
			check(t, unix.Close(fd))
		}
	})
	check(t, ns.SetSysctls([]netns.Sysctl{{Path: "ipv4/ip_forward", Value: "1"}, {Path: "ipv6/conf/all/forwarding", Value: "1"},
		{Path: "ipv4/conf/all/rp_filter", Value: "0"}, {Path: "ipv4/conf/ends/rp_filter", Value: "0"},
		{Path: "ipv4/conf/all/send_redirects", Value: "0"}, {Path: "ipv4/conf/ends/send_redirects", Value: "0"},
		{Path: "ipv6/conf/ends/addr_gen_mode", Value: "1"}, {Path: "ipv4/icmp_ratelimit", Value: "0"},
		{Path: "ipv6/icmp/ratelimit", Value: "0"}, {Path: "ipv4/icmp_msgs_per_sec", Value: "100000", Optional: true},
		{Path: "ipv4/icmp_msgs_burst", Value: "100000", Optional: true}}))
	n.handle, err = netlink.NewHandleAt(vnetns.NsHandle(ns.FD()))
	check(t, err)
	t.Cleanup(n.handle.Close)
	n.device, err = n.handle.LinkByName("ends")
	check(t, err)
	check(t, n.handle.LinkSetUp(n.device))
	for _, f := range inet.Families {
		conn, err := nft.Open(ns.FD(), ruleset.Table(f))
		check(t, err)
		t.Cleanup(func() { check(t, conn.Close()) })
		n.tables[f] = &table{conn: conn}
	}
	return n
}

// openSockets opens the tunnel and the raw sockets, inside the namespace.
func (n *node) openSockets() error {
	var err error
	if n.tunnel, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return fmt.Errorf("opening a tunnel: %w", err)
	}
	request, err := unix.NewIfreq("ends")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(n.tunnel, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("making a tunnel: %w", err)
	}
	for f, family := range map[inet.Family]int{inet.IPv4: unix.AF_INET, inet.IPv6: unix.AF_INET6} {
		if n.raw[f], err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return fmt.Errorf("opening a raw socket: %w", err)
		}
	}
	return nil
}

// become gives the node its addresses, and a route to everybody else through the device. It forgets all
// connections.
func (n *node) become(t fataler, addrs []netip.Addr) {
	t.Helper()
	for _, a := range n.addrs {
		if !slices.Contains(addrs, a) && !a.IsLoopback() {
			check(t, n.handle.AddrDel(n.device, address(a)))
		}
	}
	for _, a := range addrs {
		if !slices.Contains(n.addrs, a) && !a.IsLoopback() {
			check(t, n.handle.AddrAdd(n.device, address(a)))
			n.awaitLocal(t, a)
		}
	}
	n.addrs = slices.Clone(addrs)
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, dst, err := parseRoute(all)
		check(t, err)
		check(t, n.handle.RouteReplace(&netlink.Route{LinkIndex: n.device.Attrs().Index, Dst: dst}))
	}
	check(t, n.handle.ConntrackTableFlush(netlink.ConntrackTable))
}

// awaitLocal waits until the kernel takes an address for the node's own. For IPv6 that is somewhat after it accepted
// the address.
func (n *node) awaitLocal(t fataler, a netip.Addr) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		routes, err := n.handle.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		if time.Now().After(end) {
			t.Fatal(fmt.Errorf("the kernel does not take %s for the node's own: %w", a, err))
		}
	}
}

func address(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: network(netip.PrefixFrom(a, a.BitLen())), Flags: unix.IFA_F_NODAD}
}

// apply brings the programs of a model into the kernel as an agent does: by the difference.
func (n *node) apply(t fataler, m *service.Model) {
	t.Helper()
	if n.ipvs != nil {
		n.applyByIPVS(t, m)
		return
	}
	for f, k := range n.tables {
		p := m.Program(f)
		check(t, p.Check())
		next := k.renderer.Render(p, ruleset.Settings{})
		check(t, k.conn.Commit(nft.Diff(k.actual, next)))
		if k.program != nil {
			own := func(a netip.Addr) bool { return slices.Contains(n.addrs, a) }
			_, err := ruleset.Forget(k.conn, p, ruleset.StickyChanges(k.program, p), ruleset.Settings{}, own)
			check(t, err)
		}
		k.actual, k.program = next, p
	}
}

// fate is what became of a packet.
type fate struct {
	verdict oracle.Verdict
	backend oracle.Backend
	// here is true if the packet did not leave the node, translated or not, and our tables did not count it.
	here bool
	// refused is true if somebody said so: a TCP reset or an ICMP error left the node.
	refused bool
}

// send sends a packet and says what becomes of it. Nothing is waited for but a second packet, which must
// come out: the kernel has done with the first one by then.
func (n *node) send(t fataler, p oracle.Packet) fate {
	t.Helper()
	n.last++
	first := packet.Packet{Src: p.Src, Dst: p.Dst, Proto: packet.Protocol(p.Protocol), DstPort: p.Port,
		SrcPort: 1024 + uint16(n.last%60000), Flags: packet.SYN, Seq: n.last, Window: 1000, Credit: 1500,
		Payload: binary.BigEndian.AppendUint32([]byte("mark"), n.last)}
	if p.Protocol == 6 {
		first.Payload = nil
	}
	before := n.counters(t, p.Dst)
	if p.FromNode {
		n.sendFromInside(t, first)
	} else {
		_, err := unix.Write(n.tunnel, first.Bytes())
		check(t, err)
	}
	n.last++
	second := packet.Packet{Src: netip.MustParseAddr("203.0.113.250"), Dst: netip.MustParseAddr("198.18.0.1"),
		Proto: packet.UDP, SrcPort: 7, DstPort: 7, Payload: binary.BigEndian.AppendUint32([]byte("mark"), n.last)}
	_, err := unix.Write(n.tunnel, second.Bytes())
	check(t, err)
	var out *packet.Packet
	refused := false
	for {
		got := n.read(t)
		if got.Dst == second.Dst && string(got.Payload) == string(second.Payload) {
			break
		}
		if got.Proto == first.Proto && (got.Proto == packet.UDP && string(got.Payload) == string(first.Payload) ||
			got.Proto != packet.UDP && got.Seq == first.Seq) {
			out = &got
		}
		refused = refused || got.Proto == packet.ICMP || got.Proto == packet.TCP && got.Flags&packet.RST != 0
	}
	if reason := moved(before, n.counters(t, p.Dst)); out == nil && reason != "" {
		return fate{verdict: map[bool]oracle.Verdict{true: oracle.Reject, false: oracle.Drop}[strings.HasPrefix(reason, "reject-")]}
	}
	switch {
	case out == nil:
		return fate{here: true, refused: refused}
	case out.Dst == first.Dst && out.DstPort == first.DstPort && out.Src == first.Src:
		return fate{}
	}
	return fate{verdict: oracle.Forward, backend: oracle.Backend{To: netip.AddrPortFrom(out.Dst, out.DstPort),
		SourceKept: out.Src == first.Src}}
}

// sendFromInside sends a packet as a process of the node does.
func (n *node) sendFromInside(t fataler, p packet.Packet) {
	t.Helper()
	var to unix.Sockaddr
	if p.Dst.Is4() {
		to = &unix.SockaddrInet4{Addr: p.Dst.As4()}
	} else {
		to = &unix.SockaddrInet6{Addr: p.Dst.As16()}
	}
	// What the output chain drops or rejects is an error of the sender; the counters say which.
	if err := unix.Sendto(n.raw[inet.FamilyOf(p.Dst)], p.Bytes(), 0, to); err != nil && err != unix.EPERM {
		t.Fatalf("sending from inside: %v", err)
	}
}

// patience is how long the test waits for a packet that must come.
const patience = 2 * time.Minute

// read returns the next packet that leaves the node and that this package can read.
func (n *node) read(t fataler) packet.Packet {
	t.Helper()
	buf := make([]byte, 65536)
	for {
		size, err := unix.Read(n.tunnel, buf)
		if err == unix.EAGAIN {
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(n.tunnel), Events: unix.POLLIN}}, int(patience.Milliseconds()))
			if err != nil && err != unix.EINTR || err == nil && ready == 0 {
				t.Fatalf("nothing leaves the node: %v", os.NewSyscallError("poll", err))
			}
			continue
		}
		check(t, err)
		if p, _, ok := packet.Parse(slices.Clone(buf[:size])); ok {
			return p
		}
	}
}

// counters reads the counters of the table of an address.
func (n *node) counters(t fataler, a netip.Addr) map[string]uint64 {
	t.Helper()
	k := n.tables[inet.FamilyOf(a)]
	if k.actual == nil && n.ipvs == nil {
		return nil // the node of another proxy
	}
	list, err := k.conn.Counters()
	check(t, err)
	return list
}

// moved returns the counter that moved, or "".
func moved(before, after map[string]uint64) string {
	for name, v := range after {
		if v != before[name] {
			return name
		}
	}
	return ""
}

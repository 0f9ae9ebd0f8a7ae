// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab/netns"
)

// A packet is sent to an address that nobody has yet; then a pod gets it and
// speaks. It must not get what was sent before. Where its neighbour's packets are
// dropped it does: so the others would be seen.
func TestPacketsFromBeforeAPodAreDropped(t *testing.T) {
	for _, c := range []struct {
		name, node, pod, drop string
		want                  int
	}{
		{"IPv4", "10.9.0.1/24", "10.9.0.2", "10.9.0.2", 0},
		{"IPv4 of another pod", "10.9.0.1/24", "10.9.0.2", "10.9.0.3", 1},
		{"IPv6", "fd00:9::1/64", "fd00:9::2", "fd00:9::2", 0},
		{"IPv6 of another pod", "fd00:9::1/64", "fd00:9::2", "fd00:9::3", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				pod := wired(t, c.node)
				conn, err := net.Dial("udp", net.JoinHostPort(c.pod, "7000"))
				check(t, err)
				defer func() { check(t, conn.Close()) }()
				_, err = conn.Write([]byte("from before"))
				check(t, err)
				deleted, err := DropUnresolved([]netip.Addr{netip.MustParseAddr(c.drop)})
				check(t, err)
				if got := received(t, pod, c.pod, c.node); got != c.want || deleted != 1-c.want {
					t.Errorf("the pod got %d packets from before it, %d neighbour entries deleted; want %d and %d", got, deleted, c.want, 1-c.want)
				}
			})
		})
	}
}

// wired returns a namespace whose eth0 leads here, where the address is.
func wired(t *testing.T, addr string) *netns.NS {
	t.Helper()
	pod, err := netns.New()
	check(t, err)
	t.Cleanup(func() { check(t, pod.Close()) })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "veth0"
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "eth0", netlink.NsFd(pod.FD())
	check(t, netlink.LinkAdd(veth))
	check(t, raise("veth0"))
	check(t, pod.Do(func() error { return raise("eth0") }))
	link, err := netlink.LinkByName("veth0")
	check(t, err)
	address(t, link.Attrs().Index, addr)
	return pod
}

func raise(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// received gives a namespace an address, has it speak to the node, and counts what
// a socket there gets.
func received(t *testing.T, pod *netns.NS, addr, node string) (n int) {
	t.Helper()
	check(t, pod.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		prefix := netip.MustParsePrefix(node)
		address(t, link.Attrs().Index, netip.PrefixFrom(netip.MustParseAddr(addr), prefix.Bits()).String())
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr), Port: 7000})
		if err != nil {
			return err
		}
		defer func() { check(t, conn.Close()) }()
		if _, err := conn.WriteTo([]byte("hello"), &net.UDPAddr{IP: prefix.Addr().AsSlice(), Port: 7001}); err != nil {
			return err
		}
		check(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		for buf := make([]byte, 64); ; n++ {
			if _, _, err := conn.ReadFrom(buf); err != nil {
				return nil
			}
		}
	}))
	return n
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/lab/netns"
)

// A packet is sent to an unassigned address; then a pod gets the address and sends. It must not receive the
// earlier packet. If only its neighbour's packets are dropped it does, which proves that the test would see
// it.
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
				for try := 1; ; try++ { // the kernel may lose the other packet by itself
					got, deleted := fromBefore(t, c.node, c.pod, c.drop, c.want)
					if got == c.want && deleted == 1-c.want {
						return
					}
					if c.want == 0 || try == 5 {
						t.Fatalf("the pod got %d packets from before it, %d neighbour entries deleted; want %d and %d", got, deleted,
							c.want, 1-c.want)
					}
				}
			})
		})
	}
}

// fromBefore sends a packet to a pod that does not exist yet, and returns whether the pod receives it
// later, after the packets to an address were dropped.
func fromBefore(t *testing.T, node, addr, drop string, want int) (got, deleted int) {
	t.Helper()
	pod := wired(t, node)
	defer func() {
		link, err := netlink.LinkByName("veth0")
		check(t, err)
		check(t, netlink.LinkDel(link))
	}()
	conn, err := net.Dial("udp", net.JoinHostPort(addr, "7000"))
	check(t, err)
	defer func() { check(t, conn.Close()) }()
	_, err = conn.Write([]byte("from before"))
	check(t, err)
	deleted, err = DropUnresolved([]netip.Addr{netip.MustParseAddr(drop)})
	check(t, err)
	return received(t, pod, addr, node, want), deleted
}

// wired returns a namespace whose eth0 is connected to this one, where the address is.
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
	check(t, pod.Do(func() error { return errors.Join(raise("eth0"), ready("eth0")) }))
	check(t, ready("veth0"))
	link, err := netlink.LinkByName("veth0")
	check(t, err)
	address(t, link.Attrs().Index, addr)
	return pod
}

// ready returns when the kernel sends on an interface: before that it drops all packets.
func ready(name string) error {
	for range 20_000 {
		link, err := netlink.LinkByName(name)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return errors.New(name + " does not come up")
}

func raise(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// received gives a namespace an address, makes it send to the node, and counts the packets that a socket
// there receives. A wanted packet may take as long as the kernel keeps it.
func received(t *testing.T, pod *netns.NS, addr, node string, want int) (n int) {
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
		check(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond+time.Duration(want)*3*time.Second)))
		for buf := make([]byte, 64); n == 0 || n < want; n++ {
			if _, _, err := conn.ReadFrom(buf); err != nil {
				break
			}
		}
		return nil
	}))
	return n
}

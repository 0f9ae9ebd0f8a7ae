// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// addPort adds a port to a bridge and returns a handle for the namespace of its peer.
func addPort(t *testing.T, bridge, name string, addrs ...string) *netlink.Handle {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0",
		PeerNamespace: netlink.NsFd(ns.FD())}); err != nil {
		t.Fatal(err)
	}
	run(t, "ip", "link", "set", name, "master", bridge, "up")
	h, err := netlink.NewHandleAt(vnetns.NsHandle(ns.FD()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	for _, a := range addrs {
		changeAddress(t, h, a, (*netlink.Handle).AddrAdd)
	}
	return h
}

func changeAddress(t *testing.T, h *netlink.Handle, addr string,
	change func(*netlink.Handle, netlink.Link, *netlink.Addr) error) {
	t.Helper()
	link, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(addr + "/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := change(h, link, a); err != nil {
		t.Fatal(err)
	}
}

// portOf returns the port that the kernel's table binds an address to.
func portOf(t *testing.T, d *Datapath, addr string) string {
	t.Helper()
	table, err := d.conn.Of(ruleset.BridgeTable()).Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range ruleset.PortsInForce(table) {
		if at.Addr == netip.MustParseAddr(addr) {
			return at.Port
		}
	}
	return ""
}

// A pod keeps its port when the agent restarts: while no agent runs, the pod gives up its address and a
// neighbour takes it.
func TestAPortStaysItsPodsOverARestart(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		addBridges(t)
		own, other := addPort(t, "br0", "port5", "10.244.1.5"), addPort(t, "br0", "port6", "10.244.1.6")
		d := open(t, Options{})
		apply(t, d, isolated())
		if got := portOf(t, d, "10.244.1.5"); got != "port5" {
			t.Fatalf("the address is at %q, want port5", got)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		changeAddress(t, own, "10.244.1.5", (*netlink.Handle).AddrDel)
		changeAddress(t, other, "10.244.1.5", (*netlink.Handle).AddrAdd)
		d = open(t, Options{})
		apply(t, d, isolated())
		if got := portOf(t, d, "10.244.1.5"); got != "port5" {
			t.Errorf("after a restart the address is at %q, want port5", got)
		}
	})
}

// Another program's changes to the table of ports are repaired.
func TestTheTableOfPortsIsRepaired(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		addBridges(t)
		addPort(t, "br0", "port5", "10.244.1.5")
		d := open(t, Options{})
		apply(t, d, isolated())
		nftRun(t, "delete table bridge podwall")
		verify(t, d)
		apply(t, d, isolated())
		if got := portOf(t, d, "10.244.1.5"); got != "port5" {
			t.Errorf("the address is at %q, want port5", got)
		}
	})
}

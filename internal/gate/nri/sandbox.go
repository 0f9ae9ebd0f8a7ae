// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nri

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"

	"github.com/containerd/nri/pkg/api"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/gate"
)

// errNoAddress says that a sandbox cannot be announced.
var errNoAddress = errors.New("the sandbox has no address")

// podOf returns what is announced of a sandbox; ok is false for one on the
// node's own network, which policies do not speak about.
func podOf(s *api.PodSandbox) (p gate.Pod, ok bool, err error) {
	path := netnsOf(s)
	if path == "" {
		return p, false, nil
	}
	p = gate.Pod{Sandbox: s.GetId(), Namespace: s.GetNamespace(), Name: s.GetName(), UID: s.GetUid(),
		Network: Network, Netns: path}
	for _, text := range s.GetIps() {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return p, false, fmt.Errorf("reading the sandbox's addresses: %w", err)
		}
		p.IPs = append(p.IPs, ip.Unmap())
	}
	inside, links, err := look(path)
	p.Links = links
	if len(p.IPs) == 0 { // runtimes before containerd 2.1 do not say them
		p.IPs = inside
	} else {
		err = nil // the links are a help, and no more
	}
	if err == nil && len(p.IPs) == 0 {
		err = errNoAddress
	}
	return p, err == nil, err
}

// netnsOf returns the path of the sandbox's network namespace; one on the node's
// network has none.
func netnsOf(s *api.PodSandbox) string {
	for _, ns := range s.GetLinux().GetNamespaces() {
		if ns.GetType() == "network" {
			return ns.GetPath()
		}
	}
	return ""
}

// missing reports whether there is no such file. One that cannot be examined is
// there.
func missing(path string) bool {
	_, err := os.Stat(path)
	return path != "" && errors.Is(err, fs.ErrNotExist)
}

// look asks the kernel for the addresses inside a network namespace, and for the
// interfaces that lead there: the other end of the pod's pair, and its bridge.
func look(path string) (ips []netip.Addr, links []string, err error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the sandbox's network namespace: %w", err)
	}
	defer func() { _ = ns.Close() }() // it was only read
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, nil, fmt.Errorf("looking into the sandbox's network namespace: %w", err)
	}
	defer inside.Close()
	link, err := inside.LinkByName("eth0")
	if err != nil {
		return nil, nil, fmt.Errorf("looking for the sandbox's eth0: %w", err)
	}
	list, err := inside.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, nil, fmt.Errorf("listing the sandbox's addresses: %w", err)
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap().IsGlobalUnicast() && !slices.Contains(ips,
			ip.Unmap()) {
			ips = append(ips, ip.Unmap())
		}
	}
	return ips, leading(link), nil
}

// leading returns the names of the interfaces on this side; none if the pod is
// not behind a pair.
func leading(inside netlink.Link) (names []string) {
	if inside.Type() != "veth" {
		return nil
	}
	peer, err := netlink.LinkByIndex(inside.Attrs().ParentIndex)
	if err != nil || peer.Type() != "veth" || peer.Attrs().ParentIndex != inside.Attrs().Index {
		return nil
	}
	names = append(names, peer.Attrs().Name)
	if master, err := netlink.LinkByIndex(peer.Attrs().MasterIndex); err == nil && peer.Attrs().MasterIndex > 0 {
		names = append(names, master.Attrs().Name)
	}
	return names
}

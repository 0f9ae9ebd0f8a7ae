// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package host reads the inventory of other service proxies on this node, and carries out the plan of
// foreign.Decide. It works in the network namespace of the process, over netlink and by reading /proc: no
// iptables, nft, ipset or ip program is needed.
package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	left "github.com/podwall/podwall/internal/leftover/host"
	"github.com/podwall/podwall/internal/proxy/foreign"
)

// Look reads the inventory. The caller fills IPVS, and adds signs of its own to Running.
func Look(ctx context.Context) (inv foreign.Inventory, err error) {
	if inv.Tables, err = left.Tables(foreign.Reads); err != nil {
		return inv, err
	}
	if inv.Legacy, err = left.Legacy("nat", "filter"); err != nil {
		return inv, err
	}
	if inv.Sets, err = left.Sets(); err != nil {
		return inv, err
	}
	if inv.Links, err = links(); err != nil {
		return inv, err
	}
	inv.Running, err = running(ctx)
	return inv, err
}

func links() (list []foreign.Link, err error) {
	found, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	counts := map[int]int{}
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() { // the kernel's own, not those of Services
			counts[a.LinkIndex]++
		}
	}
	for _, l := range found {
		list = append(list, foreign.Link{Name: l.Attrs().Name, Kind: l.Type(), Addresses: counts[l.Attrs().Index]})
	}
	return list, nil
}

// Remove carries out the plan, after podwall's own tables are in force. It stops at the first step that
// fails; nothing of that step is changed if it removes rules. What was removed by another program meanwhile
// fails the step, too, and the plan must be made again.
func Remove(ctx context.Context, p foreign.Plan) error {
	if len(p.Refusals) > 0 {
		return errors.New("the plan says that nothing may be removed")
	}
	for _, s := range p.Steps {
		if err := remove(ctx, s); err != nil {
			return fmt.Errorf("removing %s: %w", s.Text, err)
		}
	}
	return nil
}

func remove(ctx context.Context, s foreign.Step) error {
	if err := left.Remove(s.Removal); err != nil {
		return err
	}
	if err := left.Destroy(ctx, s.Sets); err != nil {
		return err
	}
	for _, name := range s.Links {
		if err := removeLink(name); err != nil {
			return err
		}
	}
	return nil
}

// removeLink deletes an interface with its addresses. One that no longer exists is no error.
func removeLink(name string) error {
	l, err := netlink.LinkByName(name)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for interface %s: %w", name, err)
	}
	if err := netlink.LinkDel(l); err != nil {
		return fmt.Errorf("deleting interface %s: %w", name, err)
	}
	return nil
}

// OwnAddresses returns the addresses of the node, sorted, without those that another proxy gave it for
// Services.
func OwnAddresses() (list []netip.Addr, err error) {
	theirs := map[int]bool{}
	for _, name := range foreign.ServiceLinks() {
		if l, err := netlink.LinkByName(name); err == nil {
			theirs[l.Attrs().Index] = true
		}
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && !theirs[a.LinkIndex] {
			list = append(list, ip.Unmap())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list), nil
}

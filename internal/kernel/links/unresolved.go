// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DropUnresolved drops the packets that the kernel queues until the hardware address of one of these
// addresses is resolved, by deleting the neighbour entry. These packets passed all hooks when they were
// queued, up to three seconds ago, and are sent without passing a hook again once the address is resolved.
// Resolved entries queue no packets and are left alone. It returns the number of deleted entries.
func DropUnresolved(addrs []netip.Addr) (deleted int, err error) {
	if len(addrs) == 0 {
		return 0, nil
	}
	list, err := netlink.NeighListExecute(netlink.Ndmsg{State: netlink.NUD_INCOMPLETE})
	if err != nil {
		return 0, fmt.Errorf("listing neighbours: %w", err)
	}
	var errs []error
	for i := range list {
		if ip, ok := netip.AddrFromSlice(list[i].IP); !ok || !slices.Contains(addrs, ip) {
			continue
		}
		switch err := netlink.NeighDel(&list[i]); {
		case err == nil:
			deleted++
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV): // else the entry is gone already
			errs = append(errs, fmt.Errorf("deleting the neighbour entry of %s: %w", list[i].IP, err))
		}
	}
	return deleted, errors.Join(errs...)
}

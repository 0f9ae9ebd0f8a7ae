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

// DropUnresolved drops the packets that wait in the kernel until the hardware
// address of one of these addresses is known, by deleting its neighbour entry. They
// passed every hook when they were queued, up to three seconds ago, and are sent
// without meeting one again as soon as somebody answers. An entry that is resolved
// has no such packets and is left alone. It returns how many entries it deleted.
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
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV): // they went by themselves
			errs = append(errs, fmt.Errorf("deleting the neighbour entry of %s: %w", list[i].IP, err))
		}
	}
	return deleted, errors.Join(errs...)
}

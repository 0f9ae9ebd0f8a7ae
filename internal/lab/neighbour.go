// SPDX-License-Identifier: Apache-2.0

//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The attributes of a neighbour table (linux/neighbour.h).
const (
	ndtaName         = 1
	ndtaParms        = 6
	ndtpaIfindex     = 1
	ndtpaProxyDelay  = 13
	ndtpaQueueLength = 16

	// waitingBytes may wait on a link for each unknown neighbour: a burst of
	// probes must not be cut short before the first answer.
	waitingBytes = 16 << 20
)

// tableHeader is struct ndtmsg: the family and padding.
type tableHeader byte

func (tableHeader) Len() int            { return 4 }
func (h tableHeader) Serialize() []byte { return []byte{byte(h), 0, 0, 0} }

// patient sets how a link treats neighbours: bursts wait for an unknown one,
// and requests for proxied addresses are answered at once, not after most of a
// second. The files under /proc/sys do not exist in a user namespace, so this
// goes by netlink.
func (s *space) patient(link netlink.Link) error {
	return s.ns.Do(func() error {
		for family, table := range map[tableHeader]string{unix.AF_INET: "arp_cache", unix.AF_INET6: "ndisc_cache"} {
			req := nl.NewNetlinkRequest(unix.RTM_SETNEIGHTBL, unix.NLM_F_ACK)
			req.AddData(family)
			req.AddData(nl.NewRtAttr(ndtaName, nl.ZeroTerminated(table)))
			parms := nl.NewRtAttr(ndtaParms|unix.NLA_F_NESTED, nil)
			parms.AddRtAttr(ndtpaIfindex, nl.Uint32Attr(uint32(link.Attrs().Index)))
			parms.AddRtAttr(ndtpaQueueLength, nl.Uint32Attr(waitingBytes))
			parms.AddRtAttr(ndtpaProxyDelay, nl.Uint64Attr(0))
			req.AddData(parms)
			if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
				return fmt.Errorf("setting up %s of %s: %w", table, link.Attrs().Name, err)
			}
		}
		return nil
	})
}

// unlearn removes what a link knows about the neighbours with the addresses.
// Their next owner has another hardware address, and nobody would tell: a
// plugin on a real node announces new pods, the lab makes all forget old ones.
func (s *space) unlearn(link netlink.Link, addrs []netip.Addr) error {
	for _, a := range addrs {
		neighbour := &netlink.Neigh{LinkIndex: link.Attrs().Index, Family: addressFamily(a), IP: a.AsSlice()}
		if err := s.NeighDel(neighbour); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forgetting neighbour %s on %s: %w", a, link.Attrs().Name, err)
		}
	}
	return nil
}

func addressFamily(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

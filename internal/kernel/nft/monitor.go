// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Notice sums up the kernel's notifications of other programs' changes.
type Notice struct {
	// Table is true if another program changed a table of ours.
	Table bool
	// Hooks is true if base chains were added elsewhere, or a whole table was deleted: the order at our
	// hooks may have changed.
	Hooks bool
	// Rules is true if other chains or rules changed. Survey may return a different result, but a service
	// proxy causes this all the time, so survey at intervals.
	Rules bool
	// Lost is true if the kernel dropped notifications, as it does while a transaction of tens of thousands
	// of elements takes effect. Anything may have changed, unless the generation is the one that we left.
	Lost bool
}

// nftables notifications: group NFNLGRP_NFTABLES of NETLINK_NETFILTER.
const monitorGroup = 7

// Monitor calls report for changes that were not made from the given netlink ports, until ctx ends. ours
// identifies our tables. The first notice is always that earlier notifications are lost.
func Monitor(ctx context.Context, own func(portID uint32) bool, ours func(TableID) bool, report func(Notice)) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (monitorGroup - 1)})
	if err != nil {
		return fmt.Errorf("watching nftables: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends Receive
	defer stop()
	report(Notice{Lost: true})
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			report(Notice{Lost: true})
			continue
		case err != nil:
			_ = conn.Close()
			return fmt.Errorf("watching nftables: %w", err)
		}
		var n Notice
		for _, m := range messages {
			if !own(m.Header.PID) {
				n.add(m, ours)
			}
		}
		if n != (Notice{}) {
			report(n)
		}
	}
}

// add processes one notification. The first attribute of every nftables message is the table's name, except
// for messages about the generation. A malformed message counts as a change of our table.
func (n *Notice) add(m netlink.Message, ours func(TableID) bool) {
	const header = 4 // nfgenmsg: family, version, resource id
	kind := m.Header.Type & 0xff
	if kind == unix.NFT_MSG_NEWGEN {
		return
	}
	ad, err := netlink.NewAttributeDecoder(m.Data[min(header, len(m.Data)):])
	if err != nil || len(m.Data) < header {
		n.Table = true
		return
	}
	mine, base := false, false
	for ad.Next() {
		switch {
		case ad.Type() == unix.NFTA_TABLE_NAME:
			family, ok := familyOf(m.Data[0])
			mine = ok && ours(TableID{family, string(bytes.TrimRight(ad.Bytes(), "\x00"))})
		case ad.Type() == unix.NFTA_CHAIN_HOOK && kind == unix.NFT_MSG_NEWCHAIN:
			base = true
		}
	}
	switch {
	case mine:
		n.Table = true
	case base, kind == unix.NFT_MSG_DELTABLE:
		n.Hooks = true
	case kind == unix.NFT_MSG_NEWSETELEM, kind == unix.NFT_MSG_DELSETELEM:
		// elements of other programs' sets do not matter
	default:
		n.Rules = true
	}
}

// familyOf returns the family with the kernel's number; ok is false if our tables never have that family.
func familyOf(number byte) (f Family, ok bool) {
	switch number {
	case unix.NFPROTO_INET:
		return FamilyINet, true
	case unix.NFPROTO_IPV4:
		return FamilyIP, true
	case unix.NFPROTO_IPV6:
		return FamilyIP6, true
	case unix.NFPROTO_BRIDGE:
		return FamilyBridge, true
	}
	return 0, false
}

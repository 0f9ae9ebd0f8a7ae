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

// Notice is what the kernel's notifications say about other programs' changes.
type Notice struct {
	// Table is true if somebody else changed a table of ours.
	Table bool
	// Hooks is true if base chains outside of it came, or a whole table went: the
	// order at our hooks may have changed.
	Hooks bool
	// Rules is true if other chains or rules changed. Survey may have another
	// answer, but a service proxy does this all the time: look now and then.
	Rules bool
	// Lost is true if the kernel dropped notifications, as it does while a
	// transaction of tens of thousands of elements takes effect. Anything may have
	// changed, if the generation is not the one that we left.
	Lost bool
}

// nftables notifications: group NFNLGRP_NFTABLES of NETLINK_NETFILTER.
const monitorGroup = 7

// Monitor calls report for changes that were not made from the given netlink
// ports, until ctx ends. ours says which tables are. It begins with a notice that
// what came before is lost.
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

// add reads one notification. Every nftables message but the generation's has
// the table's name as its first attribute. One that cannot be read may be about
// our table.
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
		// elements of others are none of our business
	default:
		n.Rules = true
	}
}

// familyOf returns the family that the kernel's number stands for; ok is false if
// no table of ours can be of it.
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

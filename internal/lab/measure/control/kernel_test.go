// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// message is a notification with an address behind the head of an attribute.
func message(kind int, ip netip.Addr) netlink.Message {
	data := append([]byte{unix.NFPROTO_INET, 0, 0, 0, 8, 0, 1, 0}, ip.AsSlice()...)
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind)}, Data: data}
}

func TestTheWitnessWaitsForTheLastOfItsAddresses(t *testing.T) {
	w := &witness{waiting: map[sight]*arrival{}}
	a, b := ofEvent(1), ofEvent(2)
	seen := w.expect(false, a, b)
	leaving := w.expect(true, a)
	first, last := time.Unix(1, 0), time.Unix(2, 0)
	w.look(message(unix.NFT_MSG_NEWSETELEM, a), first)
	w.look(message(unix.NFT_MSG_NEWSETELEM, a), first) // another set has it too
	w.look(message(unix.NFT_MSG_NEWSET, b), first)     // says nothing about members
	w.look(message(unix.NFT_MSG_DELSETELEM, b), first)
	if len(seen.at) != 0 || len(leaving.at) != 0 {
		t.Fatalf("told of arrivals %d and departures %d before they were seen", len(seen.at), len(leaving.at))
	}
	w.look(message(unix.NFT_MSG_NEWRULE, b), last)
	w.look(message(unix.NFT_MSG_DELSETELEM, a), last)
	if len(seen.at) != 1 || len(leaving.at) != 1 {
		t.Fatalf("told of arrivals %d and departures %d, want one of each", len(seen.at), len(leaving.at))
	}
	if at := <-seen.at; !at.Equal(last) {
		t.Errorf("seen at %v, want the time of the last address, %v", at, last)
	}
}

// The head of an attribute (length, type, both little-endian) must not look like
// an address that is waited for.
func TestAddressesAreNoAttributeHeads(t *testing.T) {
	const longest = 16 << 10 // of the attributes in a notification
	for _, ip := range []netip.Addr{ofShape(100_000), ofEvent(0), ofEvent(100_000), ofMoved(10_000), ofPolicy(1_000), ofLocal(visitors)} {
		b := ip.As4()
		if length := int(b[0]) | int(b[1])<<8; length <= longest {
			t.Errorf("%v reads as an attribute of %d bytes", ip, length)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package witness

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
	w := &Witness{waiting: map[sight]*Arrival{}}
	a, b := netip.MustParseAddr("10.192.1.1"), netip.MustParseAddr("10.192.1.2")
	seen := w.Expect(false, a, b)
	leaving := w.Expect(true, a)
	first, last := time.Unix(1, 0), time.Unix(2, 0)
	w.look(message(unix.NFT_MSG_NEWSETELEM, a), first)
	w.look(message(unix.NFT_MSG_NEWSETELEM, a), first) // another set has it too
	w.look(message(unix.NFT_MSG_NEWSET, b), first)     // says nothing about members
	w.look(message(unix.NFT_MSG_DELSETELEM, b), first)
	if len(seen.At()) != 0 || len(leaving.At()) != 0 {
		t.Fatalf("told of arrivals %d and departures %d before they were seen", len(seen.At()), len(leaving.At()))
	}
	w.look(message(unix.NFT_MSG_NEWRULE, b), last)
	w.look(message(unix.NFT_MSG_DELSETELEM, a), last)
	if len(seen.At()) != 1 || len(leaving.At()) != 1 {
		t.Fatalf("told of arrivals %d and departures %d, want one of each", len(seen.At()), len(leaving.At()))
	}
	if at := <-seen.At(); !at.Equal(last) {
		t.Errorf("seen at %v, want the time of the last address, %v", at, last)
	}
}

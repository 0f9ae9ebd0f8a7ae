// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/kernel/links"
)

func TestAddressesThatComeAndGoAreHeardOf(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		heard, ended := make(chan []netip.Addr, 64), make(chan error, 1)
		go func() {
			ended <- links.WatchAddresses(ctx, func() {
				list, err := links.LocalAddresses()
				if err != nil {
					t.Error(err)
				}
				heard <- list
			})
		}()
		await := func(a string, want bool) {
			t.Helper()
			for {
				select {
				case list := <-heard:
					if slices.Contains(list, netip.MustParseAddr(a)) == want {
						return
					}
				case <-time.After(patience):
					t.Fatalf("nothing was heard of %s", a)
				}
			}
		}
		await("192.168.7.2", false)
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netlink.ParseAddr("192.168.7.2/32")
		for _, add := range []bool{true, false} {
			change := netlink.AddrDel
			if add {
				change = netlink.AddrAdd
			}
			if err := change(lo, addr); err != nil {
				t.Fatal(err)
			}
			await("192.168.7.2", add)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

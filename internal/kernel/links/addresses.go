// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/wake"
)

// addressesQuiet is the least time between two calls for addresses that change: a
// service proxy may add thousands, one after another.
const addressesQuiet = time.Second

// WatchAddresses calls changed whenever addresses of this network namespace may
// have changed, at first once, until ctx ends. A subscription that breaks off is
// made again, and counts as a change.
func WatchAddresses(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		if err := watchAddresses(ctx, changed); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(addressesQuiet):
		}
	}
	return nil
}

// watchAddresses returns nil when the subscription ended, an error when it cannot
// be had.
func watchAddresses(ctx context.Context, changed func()) error {
	done, updates := make(chan struct{}), make(chan netlink.AddrUpdate, 64)
	broken := wake.New()
	ended := func(error) {
		broken.Set()
	}
	if err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{ErrorCallback: ended}); err != nil {
		close(done)
		return fmt.Errorf("watching addresses: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // the subscription ends when it has seen that
			continue
		}
	}()
	changed() // nobody heard what came before
	var calm <-chan time.Time
	again := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-broken:
			return nil
		case _, open := <-updates:
			if !open {
				return nil
			}
			again = true
		case <-calm:
			calm = nil
		}
		if again && calm == nil {
			again, calm = false, time.After(addressesQuiet)
			changed()
		}
	}
}

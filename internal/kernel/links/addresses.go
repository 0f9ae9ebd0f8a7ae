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

// addressesQuiet is the minimum time between two calls of changed: a service proxy may add thousands of
// addresses, one by one.
const addressesQuiet = time.Second

// WatchAddresses calls changed once at the start and then whenever addresses of this network namespace may
// have changed, until ctx ends. A broken subscription is renewed and counts as a change.
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

// watchAddresses returns nil when the subscription breaks, and an error if it cannot be established.
func watchAddresses(ctx context.Context, changed func()) error {
	done, updates := make(chan struct{}), make(chan netlink.AddrUpdate, 64)
	broken := wake.New()
	ended := func(error) {
		broken.Set()
	}
	options := netlink.AddrSubscribeOptions{ErrorCallback: ended}
	if err := netlink.AddrSubscribeWithOptions(updates, done, options); err != nil {
		close(done)
		return fmt.Errorf("watching addresses: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // the subscription closes the channel when it has seen done
			continue
		}
	}()
	changed() // earlier changes were not notified
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

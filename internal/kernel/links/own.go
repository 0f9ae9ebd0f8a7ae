// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
)

// own caches the addresses of this network namespace. Listing them takes a lock of the kernel that every
// change of a network interface on the machine holds, in any namespace: while other pods are wired or
// deleted, a list may take 100 ms. The watch sees every change of an address, so a list is valid until then.
type own struct {
	mu      sync.Mutex
	known   bool // addrs is valid
	addrs   []netlink.Addr
	changes int // calls of forget
	lists   int // how often the kernel was asked; tests limit it
}

// forget drops the list: an address changed, or a change may have been missed.
func (o *own) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known = false
	o.changes++
}

// list returns the cached list, or that of the kernel, which read returns. Without a subscription, which
// would report changes, nothing is cached. The list must not be changed.
func (o *own) list(subscribed bool, read func() ([]netlink.Addr, error)) ([]netlink.Addr, error) {
	o.mu.Lock()
	if o.known && subscribed {
		defer o.mu.Unlock()
		return o.addrs, nil
	}
	before := o.changes
	o.lists++
	o.mu.Unlock()
	addrs, err := read()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && subscribed && o.changes == before {
		o.known, o.addrs = true, addrs
	}
	return addrs, err
}

func (l *Links) ownAddresses() ([]netlink.Addr, error) {
	return l.own.list(l.gateways.subscribed(), listAddresses)
}

// Addresses returns what the function of that name returns, from memory while Watch runs and no address
// changed. Any goroutine may call it.
func (l *Links) Addresses() (own, broadcasts []netip.Addr, err error) {
	list, err := l.ownAddresses()
	own, broadcasts = summarize(list)
	return own, broadcasts, err
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"context"
	"sync/atomic"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/wake"
)

// ahead holds the interfaces that the watch has listed after a change, until a survey uses them. A list may
// wait for a lock of the kernel for long (see own), and a Find must not: others wait for it.
type ahead struct {
	list     atomic.Pointer[[]netlink.Link] // nil if the next survey must list them
	listings atomic.Int64                   // lists of surveys; tests limit it
}

// interfaces returns the interfaces as of the last change, or lists them.
func (h *ahead) interfaces() ([]netlink.Link, error) {
	if list := h.list.Swap(nil); list != nil {
		return *list, nil
	}
	h.listings.Add(1)
	return complete(netlink.LinkList)
}

// forget makes the next survey list the interfaces.
func (h *ahead) forget() { h.list.Store(nil) }

// run lists the interfaces each time that due receives, and calls changed, until ctx ends.
func (h *ahead) run(ctx context.Context, due wake.Signal, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-due:
		}
		if list, err := complete(netlink.LinkList); err == nil {
			h.list.Store(&list)
		} else {
			h.forget() // the next Find reports it
		}
		changed()
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package links

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/wake"
)

// There may be a million routes. Reading them holds no lock and ends with the context, at any point.
func TestReadingTheRoutesOfOthersEndsWithTheContext(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		const routes = 3000
		pod := pairTo(t, "pod0", true)
		for i := range routes {
			check(t, netlink.RouteAdd(to(fmt.Sprintf("10.244.%d.%d/32", i/250, 1+i%250), pod, "")))
		}
		ctx, cancel := context.WithCancel(t.Context())
		l, heard := New(Options{}), 0
		err := l.Watch(ctx, wake.New(), func(Host) {
			if heard++; !l.gateways.mu.TryLock() {
				t.Fatal("the lock is held while the routes are read")
			}
			l.gateways.mu.Unlock()
			cancel()
		})
		if err != nil || heard != 1 || l.gateways.listed > 100 {
			t.Errorf("after the end %d routes were handed over, %d read: %v", heard, l.gateways.listed, err)
		}
		if _, err := l.Find(ctx, nil); !errors.Is(err, context.Canceled) || l.gateways.listed > 100 {
			t.Errorf("a Find reads %d routes: %v", l.gateways.listed, err)
		}
		if _, err := l.Find(t.Context(), nil); err != nil || l.gateways.listed < routes {
			t.Errorf("the next one reads %d routes: %v", l.gateways.listed, err)
		}
	})
}

// A Find that waits for another goroutine's reading ends with the context too.
func TestAFindThatWaitsForARoutesReadingEnds(t *testing.T) {
	g := gateways{reading: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.leading(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

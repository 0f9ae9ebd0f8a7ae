// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/test/cluster"
)

// sweep sends a thousand datagrams a second to the first thirty addresses of the
// range of an address, by turns, until it is stopped: whoever gets one of them
// gets some from its first moment on.
func sweep(ctx context.Context, from *cluster.Pod, in netip.Addr) error {
	ns, err := from.Netns(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }() // nothing is left in it
	return ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		to := in.As4()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			to[3] = byte(2 + n%30)
			err := unix.Sendto(fd, []byte("swept"), 0, &unix.SockaddrInet4{Port: flowPort, Addr: to})
			if err != nil && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EHOSTUNREACH) &&
				!errors.Is(err, unix.EPERM) {
				return err
			}
		}
	})
}

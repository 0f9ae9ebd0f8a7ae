// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errCrash = errors.New("the process ended here")

// crashAt lets the n-th change of the disk, and no later one, happen.
func (y *yard) crashAt(n int) {
	y.crash = func(string) error {
		if n--; n < 0 {
			return errCrash
		}
		return nil
	}
}

// Wherever install or uninstall ends in between, containerd has a network, the other
// command does its work, and what uninstall leaves is what was there before.
func TestACrashAnywhereIsMended(t *testing.T) {
	for _, file := range []string{"flannel.conflist", "kuberouter.conf"} {
		for _, settings := range []bool{false, true} {
			for n := 0; ; n++ {
				y := newYard(t, file)
				before := y.files()
				y.crashAt(n)
				err := y.Install()
				if err == nil && settings {
					y.Entry.Timeout = "3s"
					err = y.Install()
				}
				y.used()
				atInstall := errors.Is(err, errCrash)
				if !atInstall {
					y.check(err)
					err = y.Uninstall()
					y.used()
				}
				y.crash = nil
				if atInstall && n%2 == 0 {
					y.check(y.Install())
				}
				y.check(y.Uninstall())
				if diff := cmp.Diff(before, y.files()); diff != "" {
					t.Fatalf("%s: ended before change %d: after uninstall (-before +after):\n%s", file, n, diff)
				}
				if err == nil {
					break
				}
			}
		}
	}
}

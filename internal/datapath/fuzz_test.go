// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"regexp"
	"strconv"
	"testing"
)

// FuzzRelease checks that no kernel name makes the preflight panic, and that it
// refuses exactly names that begin with the number of an old kernel. A scheme
// that it does not know must not keep a node from being enforced.
func FuzzRelease(f *testing.F) {
	number := regexp.MustCompile(`^(\d{1,9})\.(\d{1,9})(\D|$)`)
	for _, r := range []string{"5.10.0", "5.9.16-generic", "6.18-rc1", "4.19.0-26-amd64", "5.4", "10.0", "", "linux",
		"5.", ".5", "6.1.0_5.4", "-5.4"} {
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, release string) {
		err := checkRelease(release)
		if err != nil && !errors.Is(err, ErrUnsupported) {
			t.Fatalf("%q: error %v is not ErrUnsupported", release, err)
		}
		m := number.FindStringSubmatch(release)
		if m == nil {
			return
		}
		major, _ := strconv.Atoi(m[1])
		minor, _ := strconv.Atoi(m[2])
		if old := major < 5 || major == 5 && minor < 10; old != (err != nil) {
			t.Errorf("%q: error = %v, want one: %t", release, err, old)
		}
	})
}

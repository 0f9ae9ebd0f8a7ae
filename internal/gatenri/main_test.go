// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gatenri

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// TestMain runs the tests in a world of their own. Without the right to make
// one they are skipped, except in CI.
func TestMain(m *testing.M) {
	status, again, err := netns.Enter()
	switch {
	case errors.Is(err, netns.ErrNoPrivilege) && os.Getenv("CI") != "true":
		fmt.Println("skipping:", err)
		os.Exit(0)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case again:
		os.Exit(status)
	}
	os.Exit(m.Run())
}

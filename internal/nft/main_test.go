// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"os"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// TestMain gives the tests the right to make network namespaces, in a user
// namespace if need be. Without it the tests of pure functions still run.
func TestMain(m *testing.M) {
	status, again, err := netns.Enter()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if again {
		os.Exit(status)
	}
	os.Exit(m.Run())
}

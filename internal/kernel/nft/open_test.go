// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

func openIn(t testing.TB) (*Conn, *netns.NS) {
	t.Helper()
	ns := nftrun.Namespace(t)
	c, err := Open(ns.FD(), TableID{Name: "podwall"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, ns
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package nft

import (
	"context"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

// What a connection commits itself is no change of others, also where sets have a description, which another
// socket sends.
func TestOwnChangesAreNotNoticed(t *testing.T) {
	ns, mine, others := nftrun.Namespace(t), natTable(inet.IPv4), TableID{FamilyINet, "other"}
	conn, other := connFor(t, ns, mine.TableID), connFor(t, ns, others)
	ctx, stop := context.WithCancel(t.Context())
	notices, ended := make(chan Notice, 100), make(chan error, 1)
	go func() {
		ended <- ns.Do(func() error {
			return Monitor(ctx, conn.Ports().Has, func(id TableID) bool { return id == mine.TableID },
				func(n Notice) { notices <- n })
		})
	}()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-notices // the first one is that earlier ones are lost
	commit(t, conn, Diff(nil, mine))
	commit(t, other, Diff(nil, &Table{TableID: others, Chains: []*Chain{
		{Name: "output", Base: &Base{Type: "filter", Hook: "output", Priority: 10}}}}))
	for table := false; ; {
		select {
		case n := <-notices:
			if table = table || n.Table; n.Hooks { // notices come in the order of the commits
				if table {
					t.Error("a change of the connection itself is another's")
				}
				return
			}
		case <-time.After(time.Minute):
			t.Fatal("the change of the other connection is not noticed")
		}
	}
}

func commit(t *testing.T, c *Conn, ops []Op) {
	t.Helper()
	if err := c.Commit(ops); err != nil {
		t.Fatal(err)
	}
}

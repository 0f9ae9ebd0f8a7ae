// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// deaf drops a pod's incoming connections inside the pod.
const deaf = `table inet deaf {
	chain input {
		type filter hook input priority 0
		tcp flags & (syn | ack) == syn drop
	}
}
`

// Both ends connect to each other at the same moment. The victim accepts no connection, but its own SYN
// came first, so the other one belongs to its connection.
func TestSimultaneousOpenIsOneConnection(t *testing.T) {
	eachDatapath(t, func(t *testing.T, w *world) {
		w.denyAll(t, stage.Policy("out", "victim", `policyTypes: [Egress], egress: [{ports: [{port: 7002}]}]`))
		w.load(t, near, deaf)
		stage.Families(t, func(t *testing.T, v6 bool) {
			mine, port := uint16(7001), uint16(7002) // mine is another one for each family: node1 is asked by it
			if v6 {
				mine = 7003
			}
			inside, outside := w.at(t, victim, v6, mine), w.at(t, near, v6, port)
			w.Stopped(t, stage.Drops{ruleset.CounterIngress: 1}, w.Raw(t, "SYN that came first", near, victim,
				packet.Packet{Dst: inside.Addr(), Proto: packet.TCP, Flags: packet.SYN, SrcPort: port, DstPort: mine,
					Window: 1000}))
			before, first := w.Counters(t), make(chan net.Conn, 1)
			go func() {
				c, err := w.dial(t, victim, inside, outside)
				if err != nil {
					t.Error(err)
				}
				first <- c
			}()
			h := w.Handle(t, node1)
			if !stage.Becomes(func() bool { return w.knows(t, h, []uint16{mine}) }) {
				t.Error("node1 has not seen the victim's SYN")
			}
			second, err := w.dial(t, near, outside, inside)
			one := <-first
			if err != nil || t.Failed() {
				t.Fatal("no connection: ", err)
			}
			carries(t, one, second, 100_000)
			carries(t, second, one, 100_000)
			w.Moved(t, "simultaneous open", before, stage.Drops{})
		})
	})
}

func TestAHalfClosedConnectionGoesOn(t *testing.T) {
	eachWiring(t, func(t *testing.T, w *world) {
		w.denyAll(t, stage.Usual()[0], stage.Policy("peer", "peer",
			`policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: victim}}}]}]`))
		stage.Families(t, func(t *testing.T, v6 bool) {
			to, before := w.at(t, victim, v6, 80), w.Counters(t)
			client, server := w.connect(t, peer, to, w.listen(t, victim, to))
			carries(t, client, server, 1000)
			stage.Check(t, client.CloseWrite())
			ends(t, server)
			for range 3 {
				carries(t, server, client, 100_000)
			}
			stage.Check(t, server.CloseWrite())
			ends(t, client)
			w.Moved(t, "a half-closed connection", before, stage.Drops{})
		})
	})
}

// ends wants the other end to have closed its direction.
func ends(t *testing.T, c net.Conn) {
	t.Helper()
	stage.Check(t, c.SetReadDeadline(time.Now().Add(stage.Patience)))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%s read %d bytes and %v, want the end", c.LocalAddr(), n, err)
	}
}

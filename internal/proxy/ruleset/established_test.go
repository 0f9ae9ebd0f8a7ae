// SPDX-License-Identifier: Apache-2.0

//go:build linux

package ruleset_test

import (
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

// The tables have NAT chains only: no hook for every packet.
func TestNoChainSeesEveryPacket(t *testing.T) {
	for _, e := range examples() {
		for _, s := range []ruleset.Settings{{}, {IPVS: true}} {
			hooks := 0
			for _, c := range ruleset.Render(e.program(), s).Chains {
				if c.Base == nil {
					continue
				}
				if hooks++; c.Base.Type != "nat" {
					t.Errorf("chain %s is of type %s", c.Name, c.Base.Type)
				}
			}
			if hooks != 3 {
				t.Errorf("%d base chains, want 3", hooks)
			}
		}
	}
}

// Counters before all rules see one packet of a flow to a Service, however many follow in both directions.
func TestEstablishedPacketsMeetNoRule(t *testing.T) {
	for _, f := range inet.Families {
		w := newWorld(t, f)
		table := nft.FamilyFor(f).String() + " " + ruleset.TableName
		field := map[inet.Family]string{inet.IPv4: "ip", inet.IPv6: "ip6"}[f]
		var text strings.Builder
		for _, chain := range []string{"prerouting", "output", "postrouting"} {
			text.WriteString("add counter " + table + " seen-" + chain + "\n")
			for _, end := range []string{" saddr ", " daddr "} {
				text.WriteString("insert rule " + table + " " + chain + " " + field + end + w.addr(localPod).String() +
					" counter name seen-" + chain + "\n")
			}
		}
		nftrun.Run(t, w.endpoint(ourNode).NS, text.String(), "-f", "-")
		c, err := w.endpoint(localPod).NS.Dial(t.Context(), "udp", netip.AddrPortFrom(w.web, port).String())
		check(t, err)
		t.Cleanup(func() { _ = c.Close() }) // nothing is lost
		want := map[string]uint64{"seen-prerouting": 1, "seen-output": 0, "seen-postrouting": 1}
		for range 20 {
			ask(t, c)
			counters, err := w.conn.Counters()
			check(t, err)
			maps.DeleteFunc(counters, func(name string, _ uint64) bool { return !strings.HasPrefix(name, "seen-") })
			if !maps.Equal(counters, want) {
				t.Fatalf("%v: rules met %v packets, want %v", f, counters, want)
			}
		}
	}
}

// ask sends a datagram and waits for the answer.
func ask(t *testing.T, c net.Conn) {
	t.Helper()
	check(t, c.SetDeadline(time.Now().Add(2*time.Minute)))
	_, err := c.Write([]byte("who are you?"))
	check(t, err)
	_, err = c.Read(make([]byte, 100))
	check(t, err)
}

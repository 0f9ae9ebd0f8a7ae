// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// A cut among many connections of other pods and of the pod itself: the promise is one second up to 50,000,
// two and a half at 200,000.
func TestACutBesideManyConnections(t *testing.T) {
	n, bound := 50_000, 2*time.Second
	if soak.Long() {
		n, bound = 200_000, 4*time.Second
	}
	w := newWorld(t, lab.Routed)
	h := listen(t, w.ns(t, server), serverPort, w.actors[0].addrs()...)
	defer h.end()
	list := w.everyTalk(t, h)
	await(t, list)
	w.crowd(t, n)
	for range 3 {
		start := time.Now()
		w.apply(t, policy("server", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: good}}}, {ipBlock: {cidr: 10.8.0.0/14}}]}]`))
		enforced := time.Since(start)
		slowest := w.silent(t, start, list)
		t.Logf("among %d connections: enforced after %s, the last packet of a denied one after %s", n, enforced, slowest)
		if slowest > bound {
			t.Errorf("a cut took %s, at most %s is good enough on a busy machine", slowest, bound)
		}
		w.apply(t)
		await(t, datagrams(list))
	}
	unharmed(t, list)
}

func datagrams(list []*talk) (udp []*talk) {
	for _, k := range list {
		if k.proto == packet.UDP {
			udp = append(udp, k)
		}
	}
	return udp
}

// silent waits until no packet of the denied connections has arrived for a while, and returns when the last
// one did.
func (w *world) silent(t *testing.T, start time.Time, list []*talk) time.Duration {
	t.Helper()
	const pause = 500 * time.Millisecond
	for end := start.Add(patience); time.Now().Before(end); time.Sleep(beat) {
		last := start
		for _, k := range list {
			if _, at := k.entered(); !k.goes && at.After(last) {
				last = at
			}
		}
		if time.Since(last) > pause {
			return last.Sub(start)
		}
	}
	t.Fatal("denied connections go on")
	return 0
}

// crowd adds connections to the table of the server's node: half of them with the server, none of them to
// be cut.
func (w *world) crowd(t *testing.T, n int) {
	t.Helper()
	check(t, w.Bed().Node(node1).NS.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer h.Close()
		servers := []netip.Addr{w.actors[0].addr(false), netip.MustParseAddr("192.0.2.7")}
		for i := range n {
			client := netip.AddrFrom4([4]byte{10, 8 + byte(i>>16), byte(i >> 8), byte(i)}).AsSlice()
			to := servers[i%2].AsSlice()
			err := h.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, &netlink.ConntrackFlow{
				FamilyType: unix.AF_INET, TimeOut: 600, ProtoInfo: &netlink.ProtoInfoTCP{State: 3},
				Forward: netlink.IPTuple{Protocol: 6, SrcIP: client, DstIP: to, SrcPort: 40000, DstPort: 8080},
				Reverse: netlink.IPTuple{Protocol: 6, SrcIP: to, DstIP: client, SrcPort: 8080, DstPort: 40000},
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

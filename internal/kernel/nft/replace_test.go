// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

// closing is a table that drops new connections to the loopback address, by a map that leads to a chain.
func closing() *Table {
	return &Table{
		TableID:  TableID{FamilyINet, "podwall-test"},
		Counters: []string{"dropped"},
		Sets: []*Set{{Name: "judged", Key: Addr4, Map: true,
			Entries: []Entry{{Key: Key{Element: inet.Element{Addr: netip.MustParseAddr("127.0.0.1")}},
				Verdict: Verdict{Kind: Jump, Chain: "closed"}}}}},
		Chains: []*Chain{
			{Name: "output", Base: &Base{Type: "nat", Hook: "output", Priority: -190},
				Rules: []Rule{{Family: inet.IPv4, Statements: []Statement{
					Lookup{Field: Destination, Family: inet.IPv4, Set: "judged", Map: true}}}}},
			{Name: "closed", Rules: []Rule{{Statements: []Statement{Count{"dropped"}, Verdict{Kind: Drop}}}}},
			{Name: "tracking", Rules: []Rule{{Statements: []Statement{MatchState{CtInvalid}, Verdict{Kind: Return}}}}},
		},
	}
}

// stream sends first packets of new connections to the address, as fast as it can.
func stream(t *testing.T, ns *netns.NS, to *net.UDPAddr) (sent *atomic.Int64) {
	t.Helper()
	sent = new(atomic.Int64)
	var stop atomic.Bool
	done := make(chan error)
	address := &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
	go func() {
		done <- ns.Do(func() error {
			for ; !stop.Load(); sent.Add(1) {
				s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				_ = unix.Sendto(s, []byte("x"), 0, address) // dropped packets are an error
				if err := unix.Close(s); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		stop.Store(true)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return sent
}

// While a table is replaced by another one that drops the same packets none of them passes. Without a copy
// beside it some do in every third replacement, on a machine that does nothing else.
func TestNoPacketPassesWhileATableIsReplaced(t *testing.T) {
	ns := nftrun.Namespace(t)
	table := closing()
	c := connFor(t, ns, table.TableID)
	if err := c.Commit(Diff(nil, table)); err != nil {
		t.Fatal(err)
	}
	var at *net.UDPConn
	if err := ns.Do(func() (err error) {
		at, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	passed := make(chan int)
	go func() {
		n := 0
		for b := make([]byte, 1); ; n++ {
			if _, err := at.Read(b); err != nil {
				passed <- n
				return
			}
		}
	}()
	t.Run("replacing", func(t *testing.T) {
		sent := stream(t, ns, at.LocalAddr().(*net.UDPAddr))
		for i := range 200 {
			for before := sent.Load(); sent.Load() < before+20; { // packets are under way
			}
			old := *table
			old.Dormant = true // so that the whole table is replaced
			if err := c.Commit(Diff(&old, table)); err != nil {
				t.Fatal(i, err)
			}
		}
	})
	if err := at.Close(); err != nil {
		t.Fatal(err)
	}
	if n := <-passed; n > 0 {
		t.Errorf("%d packets passed", n)
	}
	if _, copied, err := c.find(); err != nil || copied {
		t.Errorf("a copy is left: %t, %v", copied, err)
	}
}

// The copy that an interrupted replacement left is seen and dropped, whether or not its table is there, and
// goes with the table.
func TestACopyThatWasLeftIsDropped(t *testing.T) {
	ns := nftrun.Namespace(t)
	table := closing()
	c := connFor(t, ns, table.TableID)
	leave := func() {
		t.Helper()
		if err := c.Of(table.Copy()).Commit(Diff(nil, table)); err != nil {
			t.Fatal(err)
		}
		if found, err := c.Exists(); err != nil || !found {
			t.Fatalf("the copy is not seen: %v", err)
		}
	}
	none := func(when string) {
		t.Helper()
		if found, err := c.Of(table.Copy()).Exists(); err != nil || found {
			t.Errorf("%s: there is a copy, or %v", when, err)
		}
	}
	bring := func(when string) {
		t.Helper()
		actual, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Commit(Diff(actual, table)); err != nil {
			t.Fatal(err)
		}
		none(when)
		if actual, err = c.Read(); err != nil || len(Diff(actual, table)) > 0 {
			t.Errorf("%s: the table is not as desired, or %v", when, err)
		}
	}
	leave()
	bring("without a table")
	leave()
	bring("beside the table")
	leave()
	nftrun.Run(t, ns, "", "add table inet podwall-test { flags dormant; }")
	bring("beside a table that is replaced")
	leave()
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	none("after the table was deleted")
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

const (
	webPod         = "10.244.1.5"
	first, second  = "10.244.2.5", "10.244.2.6"
	elsewhere      = "10.244.9.9"
	tcpPort, reply = 80, 40000
)

// connect adds a connection to the table of this process's network namespace.
func connect(t *testing.T, p inet.Protocol, src, dst string) {
	t.Helper()
	connectIn(t, established, p, src, dst)
}

// States of a TCP connection.
const established, timeWait = 3, 7

// connectIn is connect, with a state for TCP.
func connectIn(t *testing.T, state uint8, p inet.Protocol, src, dst string) {
	t.Helper()
	tuple := func(src, dst string, sport, dport uint16) netlink.IPTuple {
		return netlink.IPTuple{Protocol: uint8(p), SrcIP: netip.MustParseAddr(src).AsSlice(),
			DstIP: netip.MustParseAddr(dst).AsSlice(), SrcPort: sport, DstPort: dport}
	}
	flow := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 300, Forward: tuple(src, dst, reply, tcpPort),
		Reverse: tuple(dst, src, tcpPort, reply)}
	if p == inet.TCP {
		flow.ProtoInfo = &netlink.ProtoInfoTCP{State: state}
	}
	if err := netlink.ConntrackCreate(netlink.ConntrackTable, unix.AF_INET, flow); err != nil {
		t.Fatal(err)
	}
}

// connections lists the table.
func connections(t *testing.T) []string {
	t.Helper()
	c, err := conntrack.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var list []string
	if err := c.Dump(0, func(e *inet.Connection) {
		list = append(list, line(e.Protocol, e.Orig.Src.String(), e.Orig.Dst.String()))
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func line(p inet.Protocol, src, dst string) string { return fmt.Sprintf("%s %s > %s", p, src, dst) }

// watch runs the goroutines next to the loop until the test ends.
func watch(t *testing.T, d *Datapath) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Watch(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
}

// drive does what is requested, as the agent's loop does, until the connections are the wanted ones. It
// returns what was cut.
func drive(t *testing.T, d *Datapath, p *program.Program, want ...string) (sum Cuts) {
	t.Helper()
	slices.Sort(want)
	next := apply(t, d, p).Cuts
	for end := time.Now().Add(patience); ; {
		sum.Ingress, sum.Egress, sum.Reused, sum.Refused = sum.Ingress+next.Ingress, sum.Egress+next.Egress,
			sum.Reused+next.Reused, next.Refused
		sum.Gone += next.Gone
		if slices.Equal(connections(t), want) {
			return sum
		}
		if time.Now().After(end) {
			t.Fatalf("connections (-want +got):\n%s", cmp.Diff(want, connections(t)))
		}
		select {
		case <-d.Denied():
			next = endFound(t, d)
		case <-d.Changed():
			next = apply(t, d, p).Cuts
		case <-time.After(time.Second):
			next = apply(t, d, p).Cuts
		}
	}
}

// endFound ends the denied connections that were found, once.
func endFound(t *testing.T, d *Datapath) Cuts {
	t.Helper()
	c, err := d.Cut(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill connects both peers to the pod, and others.
func fill(t *testing.T) {
	t.Helper()
	for _, p := range []inet.Protocol{inet.TCP, inet.UDP} {
		connect(t, p, first, webPod)
		connect(t, p, second, webPod)
		connect(t, p, second, elsewhere)
	}
}

func lines(pairs ...string) (list []string) {
	for i := 0; i < len(pairs); i += 2 {
		for _, p := range []inet.Protocol{inet.TCP, inet.UDP} {
			list = append(list, line(p, pairs[i], pairs[i+1]))
		}
	}
	return list
}

func refusedElement(t *testing.T) bool {
	t.Helper()
	return strings.Contains(listing(t), fmt.Sprintf("%s . %d . %s . %d", webPod, tcpPort, second, reply))
}

func TestAChangeCutsWhatItDeniesAndNothingElse(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		watch(t, d)
		apply(t, d, isolated(first, second))
		fill(t)
		before := listing(t)
		got := drive(t, d, isolated(first), lines(first, webPod, second, elsewhere)...)
		if want := (Cuts{Ingress: 2, Refused: 2}); got != want {
			t.Errorf("cut %+v, want %+v", got, want)
		}
		if !refusedElement(t) {
			t.Errorf("the answering end is not refused:\n%s", listing(t))
		}
		if r := apply(t, d, isolated(first)); r.Changes != 0 {
			t.Errorf("the same program again: %s", brief(r))
		}
		d.decider.Lenience = time.Hour
		if apply(t, d, isolated(first, second)); !refusedElement(t) {
			t.Error("allowed again, the answering end may speak first")
		}
		d.decider.Lenience = 0
		apply(t, d, isolated(first, second))                                         // long enough
		after := strings.Replace(listing(t), "\tcounter drop-cut {\n\t}\n\n", "", 1) // stays, for what it has counted
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the table, before the cut (-) and after it was taken back (+):\n%s", diff)
		}
	})
}

// A cut is a commit of its own: the rules that refuse the replying ends are committed in one transaction
// and result in the table that a full pass would make. A cut without connections sends nothing.
func TestACutIsACommitOfItsOwn(t *testing.T) {
	for name, o := range map[string]decide.Options{"nat": {}, "no guard": {Guard: decide.GuardOff},
		"filter": {FilterHook: true}} {
		t.Run(strings.ReplaceAll(name, " ", ""), func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{Options: o})
				watch(t, d)
				apply(t, d, isolated(first, second))
				fill(t)
				apply(t, d, isolated(first))
				for sum := 0; sum < 2; {
					select {
					case <-d.Denied():
					case <-time.After(patience):
						t.Fatalf("%d of 2 connections were found in %s", sum, patience)
					}
					before := d.conn.Transactions()
					c := endFound(t, d)
					if sum += c.Ingress; d.conn.Transactions()-before != 1 {
						t.Errorf("ending %d connections took %d transactions", c.Ingress, d.conn.Transactions()-before)
					}
				}
				if !refusedElement(t) {
					t.Errorf("the answering end is not refused:\n%s", listing(t))
				}
				before := d.conn.Transactions()
				if endFound(t, d); d.conn.Transactions() != before {
					t.Error("a cut that ends nothing sends something")
				}
				if r := apply(t, d, isolated(first)); r.Changes != 0 {
					t.Errorf("the next pass makes another table: %s", brief(r))
				}
				d.decider.Lenience = 0
				apply(t, d, isolated(first, second)) // allowed again
				if endFound(t, d); strings.Contains(listing(t), "chain cut ") {
					t.Errorf("the rules are there and refuse nothing:\n%s", listing(t))
				}
				if r := apply(t, d, isolated(first, second)); r.Changes != 0 {
					t.Errorf("without them the next pass makes another table: %s", brief(r))
				}
			})
		})
	}
}

// Before the first commit, and after the table was lost, a cut ends nothing and requests a pass.
func TestACutNeedsATableThatIsKnown(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		endFound(t, d)
		woken(t, d)
		if exists, err := d.conn.Exists(); err != nil || exists {
			t.Errorf("there is a table: %t, %v", exists, err)
		}
		apply(t, d, isolated(first))
		d.table.known = false
		endFound(t, d)
		woken(t, d)
	})
}

// Another program deletes our table while a connection waits to be ended. The cut leaves that to the next
// pass, which finds and reports the change.
func TestACutLeavesOthersChangesToAPass(t *testing.T) {
	for name, heard := range map[string]bool{"heard of": true, "not heard of": false} {
		t.Run(strings.ReplaceAll(name, " ", ""), func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				watch(t, d)
				awaitWatch(t, d)
				settled(t, d, isolated(first, second))
				connect(t, inet.TCP, second, webPod)
				apply(t, d, isolated(first))
				<-d.Denied()
				nftRun(t, "delete table inet podwall")
				n := nft.Notice{}
				for !n.Table { // a wake-up may be left of what was before
					woken(t, d)
					n = d.take()
				}
				if heard {
					d.note(n)
				}
				_, err := d.Cut(t.Context())
				if (err == nil) != heard {
					t.Errorf("a cut without a table: %v", err)
				}
				d.note(nft.Notice{Table: true})
				if r := apply(t, d, isolated(first)); r.Drift == 0 {
					t.Errorf("no report that the table was deleted: %s", brief(r))
				}
				drive(t, d, isolated(first))
			})
		})
	}
}

// twoTenants is a program with a pod of each tenant. The peers of the second may reach webPod, those of the
// first its neighbour.
func twoTenants(flapping, quiet []string) *program.Program {
	set := func(name string, peers []string) *program.Set {
		s := &program.Set{Name: name, Kind: inet.Addrs, Family: inet.IPv4}
		for _, a := range peers {
			s.Elements = s.Elements.With(inet.Element{Addr: netip.MustParseAddr(a)})
		}
		return s
	}
	chain := func(name, set string) *program.Chain {
		return &program.Chain{Name: name, Direction: program.Ingress, Family: inet.IPv4,
			Rules: []program.Rule{{PeerSet: set}}}
	}
	p := &program.Program{
		Pods: []program.Pod{
			{Addr: netip.MustParseAddr(webPod), Name: "quiet/web", Tenant: "quiet", Ingress: "ingress4-quiet"},
			{Addr: netip.MustParseAddr(friendly), Name: "flapping/web", Tenant: "flapping", Ingress: "ingress4-flapping"},
		},
		Chains: []*program.Chain{chain("ingress4-flapping", "pods4-flapping"), chain("ingress4-quiet", "pods4-quiet")},
		Sets:   []*program.Set{set("pods4-flapping", flapping), set("pods4-quiet", quiet)},
	}
	if len(flapping) == 0 { // connections that its own policy denies, not those of its deleted peers
		p.Chains[0] = &program.Chain{Name: "ingress4-closed", Direction: program.Ingress, Family: inet.IPv4}
		p.Pods[1].Ingress, p.Sets = "ingress4-closed", p.Sets[1:]
	}
	return p
}

// A tenant that changes its policy all the time uses up its scans. No other tenant waits for that: not if
// the whole table is dumped, which then serves the tenant in debt too, and not if the kernel dumps the
// entries of an address.
func TestATenantThatFlapsDelaysOnlyItsOwnCuts(t *testing.T) {
	for _, crowd := range []int{0, filteredAbove} {
		t.Run(fmt.Sprint(crowd), func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				d.cuts.audit.accounts = accounts{share: 1e-9, credit: 1, list: map[cut.Payer]budget{}} // one scan, then none
				both := []string{first}
				apply(t, d, twoTenants(both, both))
				d.cuts.audit.requests = requests{} // of the start
				watch(t, d)
				all := slices.Clip(crowded(t, crowd))
				connect(t, inet.UDP, first, webPod)
				connect(t, inet.UDP, first, friendly)
				drive(t, d, twoTenants(nil, both), append(all, line(inet.UDP, first, webPod))...)
				for range 10 {
					apply(t, d, twoTenants(both, both))
					apply(t, d, twoTenants(nil, both))
				}
				connect(t, inet.UDP, second, friendly)
				apply(t, d, twoTenants(both, both))
				drive(t, d, twoTenants(nil, both), append(all, line(inet.UDP, first, webPod), line(inet.UDP, second, friendly))...)
				want := all
				if crowd > 0 {
					want = append(all, line(inet.UDP, second, friendly)) // would make the quiet tenant's scan longer
				}
				closed := twoTenants(nil, nil)
				drive(t, d, closed, want...)
				if r := apply(t, d, closed); r.Cuts.Refused < 2 {
					t.Errorf("%d answering ends are refused", r.Cuts.Refused)
				}
			})
		})
	}
}

// crowded adds that many unrelated connections to the table.
func crowded(t *testing.T, n int) (list []string) {
	t.Helper()
	for i := range n {
		src := netip.AddrFrom4([4]byte{10, 8, byte(i >> 8), byte(i)}).String()
		connect(t, inet.UDP, src, elsewhere)
		list = append(list, line(inet.UDP, src, elsewhere))
	}
	return list
}

func TestConnectionsThatAreDeniedAtTheStartAreCutAndStayCutOverARestart(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		nftRun(t, "add table inet other", "add chain inet other c { type filter hook output priority 0; }",
			"add rule inet other c ct state new accept")
		fill(t)
		d := open(t, Options{})
		watch(t, d)
		drive(t, d, isolated(first), lines(first, webPod, second, elsewhere)...)
		table := listing(t)

		again := open(t, Options{})
		if r := apply(t, again, isolated(first)); r.Changes != 0 || r.Cuts.Refused != 2 {
			t.Errorf("a second process: %s", brief(r))
		}
		if diff := cmp.Diff(table, listing(t)); diff != "" || !refusedElement(t) {
			t.Errorf("the table after a restart (-before +after):\n%s", diff)
		}
		nftRun(t, "delete table inet podwall")
		again.table.known = false
		if apply(t, again, isolated(first)); !refusedElement(t) {
			t.Errorf("after the table was lost the answering end is not refused:\n%s", listing(t))
		}
		nftRun(t, fmt.Sprintf("delete element inet podwall cut4-tcp { %s . %d . %s . %d }", webPod, tcpPort, second, reply),
			fmt.Sprintf("delete element inet podwall cut4-udp { %s . %d . %s . %d }", webPod, tcpPort, second, reply))
		verify(t, again)
		if r := apply(t, again, isolated(first)); !refusedElement(t) || r.Cuts.Refused != 1 {
			t.Errorf("removed elements are not there again, except where the kernel may have forgotten it: %s\n%s", brief(r),
				listing(t))
		}
	})
}

func TestConnectionsAreKeptIfToldSo(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{Options: decide.Options{KeepConnections: true}})
		watch(t, d)
		apply(t, d, isolated(first, second))
		fill(t)
		apply(t, d, isolated())
		all := lines(first, webPod, second, webPod, second, elsewhere)
		select {
		case <-d.Changed():
			drive(t, d, isolated(), all...)
		case <-d.Denied():
			drive(t, d, isolated(), all...)
		case <-time.After(300 * time.Millisecond): // nothing may follow
		}
		if diff := cmp.Diff(all, connections(t)); len(connections(t)) != len(all) {
			t.Errorf("connections (-before +after):\n%s", diff)
		}
		next := isolated()
		next.Pods[0].Name = "shop/next"
		drive(t, d, next, lines(second, elsewhere)...)
	})
}

func TestConnectionsOfAReusedAddressAreGoneBeforeItsNewOwnerIsProgrammed(t *testing.T) {
	tests := []struct {
		name string
		next func(p *program.Program)
	}{
		{"another name", func(p *program.Program) { p.Pods[0].Name = "shop/next" }},
		{"known for the first time", func(p *program.Program) {
			p.Pods[0].Addr = netip.MustParseAddr(elsewhere)
			p.Pods = append(p.Pods, program.Pod{Addr: netip.MustParseAddr("10.244.9.10")})
		}},
	}
	for _, tt := range tests {
		t.Run(strings.ReplaceAll(tt.name, " ", ""), func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				apply(t, d, isolated(first, second))
				fill(t)
				p := isolated(first, second) // which would allow them
				tt.next(p)
				apply(t, d, p)
				owner := p.Pods[0].Addr.String()
				for _, l := range connections(t) {
					if strings.HasSuffix(l, owner) {
						t.Errorf("%s is still there", l)
					}
				}
				if len(connections(t)) == 0 {
					t.Error("connections of others are gone too")
				}
			})
		})
	}
}

func TestConnectionsOfAPodThatIsGoneGoToo(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		watch(t, d)
		apply(t, d, isolated(first, second))
		fill(t)
		p := isolated(first, second)
		p.Pods = nil
		drive(t, d, p, lines(second, elsewhere)...)
	})
}

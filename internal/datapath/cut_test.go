// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"fmt"
	"log/slog"
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
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

const (
	webPod         = "10.244.1.5"
	first, second  = "10.244.2.5", "10.244.2.6"
	elsewhere      = "10.244.9.9"
	tcpPort, reply = 80, 40000
)

// connect puts a connection into the table of this process' network namespace.
func connect(t *testing.T, p inet.Protocol, src, dst string) {
	t.Helper()
	tuple := func(src, dst string, sport, dport uint16) netlink.IPTuple {
		return netlink.IPTuple{Protocol: uint8(p), SrcIP: netip.MustParseAddr(src).AsSlice(), DstIP: netip.MustParseAddr(dst).AsSlice(), SrcPort: sport, DstPort: dport}
	}
	flow := &netlink.ConntrackFlow{FamilyType: unix.AF_INET, TimeOut: 300, Forward: tuple(src, dst, reply, tcpPort), Reverse: tuple(dst, src, tcpPort, reply)}
	if p == inet.TCP {
		flow.ProtoInfo = &netlink.ProtoInfoTCP{State: 3}
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

// watch runs what runs beside the loop, until the test ends.
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

// drive applies whenever it is asked to, until the connections are the wanted
// ones. It returns what was cut.
func drive(t *testing.T, d *Datapath, p *program.Program, want ...string) (sum Cuts) {
	t.Helper()
	slices.Sort(want)
	for end := time.Now().Add(30 * time.Second); ; {
		r := apply(t, d, p)
		sum.Ingress, sum.Egress, sum.Reused, sum.Refused = sum.Ingress+r.Cuts.Ingress, sum.Egress+r.Cuts.Egress, sum.Reused+r.Cuts.Reused, r.Cuts.Refused
		if slices.Equal(connections(t), want) {
			return sum
		}
		if time.Now().After(end) {
			t.Fatalf("connections (-want +got):\n%s", cmp.Diff(want, connections(t)))
		}
		select {
		case <-d.Changed():
		case <-time.After(100 * time.Millisecond):
		}
	}
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
		d.cuts.lenient = time.Hour
		if apply(t, d, isolated(first, second)); !refusedElement(t) {
			t.Error("allowed again, the answering end may speak first")
		}
		d.cuts.lenient = 0
		apply(t, d, isolated(first, second))                                         // long enough
		after := strings.Replace(listing(t), "\tcounter drop-cut {\n\t}\n\n", "", 1) // stays, for what it has counted
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("the table, before the cut (-) and after it was taken back (+):\n%s", diff)
		}
	})
}

// twoTenants is a program with a pod of each. The peers of the second may reach
// webPod, those of the first its neighbour.
func twoTenants(flapping, quiet []string) *program.Program {
	set := func(name string, peers []string) *program.Set {
		s := &program.Set{Name: name, Kind: inet.Addrs, Family: inet.IPv4}
		for _, a := range peers {
			s.Elements = s.Elements.With(inet.Element{Addr: netip.MustParseAddr(a)})
		}
		return s
	}
	chain := func(name, set string) *program.Chain {
		return &program.Chain{Name: name, Direction: program.Ingress, Family: inet.IPv4, Rules: []program.Rule{{PeerSet: set}}}
	}
	p := &program.Program{
		Pods: []program.Pod{
			{Addr: netip.MustParseAddr(webPod), Name: "quiet/web", Tenant: "quiet", Ingress: "ingress4-quiet"},
			{Addr: netip.MustParseAddr(friendly), Name: "flapping/web", Tenant: "flapping", Ingress: "ingress4-flapping"},
		},
		Chains: []*program.Chain{chain("ingress4-flapping", "pods4-flapping"), chain("ingress4-quiet", "pods4-quiet")},
		Sets:   []*program.Set{set("pods4-flapping", flapping), set("pods4-quiet", quiet)},
	}
	if len(flapping) == 0 { // what its own policy denies, and not its peers that are gone
		p.Chains[0] = &program.Chain{Name: "ingress4-closed", Direction: program.Ingress, Family: inet.IPv4}
		p.Pods[1].Ingress, p.Sets = "ingress4-closed", p.Sets[1:]
	}
	return p
}

// A tenant that changes its policy all the time uses up what it may have scanned.
// Nobody else waits for that: not where the kernel is asked for all entries, which
// then serve the one in debt too, and not where it is asked for those of an address.
func TestATenantThatFlapsDelaysOnlyItsOwnCuts(t *testing.T) {
	for _, crowd := range []int{0, filteredAbove} {
		t.Run(fmt.Sprint(crowd), func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{})
				d.cuts.audit.accounts = accounts{share: 1e-9, credit: 1, list: map[payer]budget{}} // one scan, and then for ever none
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
					want = append(all, line(inet.UDP, second, friendly)) // would make the quiet one's scan longer
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

// crowded puts that many connections of others into the table.
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
		nftRun(t, "add table inet other", "add chain inet other c { type filter hook output priority 0; }", "add rule inet other c ct state new accept")
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
		again.known = false
		if apply(t, again, isolated(first)); !refusedElement(t) {
			t.Errorf("after the table was lost the answering end is not refused:\n%s", listing(t))
		}
		nftRun(t, fmt.Sprintf("delete element inet podwall cut4-tcp { %s . %d . %s . %d }", webPod, tcpPort, second, reply),
			fmt.Sprintf("delete element inet podwall cut4-udp { %s . %d . %s . %d }", webPod, tcpPort, second, reply))
		verify(t, again)
		if r := apply(t, again, isolated(first)); !refusedElement(t) || r.Cuts.Refused != 1 {
			t.Errorf("what somebody took out is not there again, except where the kernel may have forgotten it: %s\n%s", brief(r), listing(t))
		}
	})
}

func TestConnectionsAreKeptIfToldSo(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{KeepConnections: true})
		watch(t, d)
		apply(t, d, isolated(first, second))
		fill(t)
		apply(t, d, isolated())
		all := lines(first, webPod, second, webPod, second, elsewhere)
		select {
		case <-d.Changed():
			drive(t, d, isolated(), all...)
		case <-time.After(300 * time.Millisecond): // nothing is to come
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

func TestTheSetsAreBounded(t *testing.T) {
	c := cuts{log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	c.refused = refusedMany(MaxRefused)
	todo := &plan{add: refusedMore(10, ""), remove: refusedFirst(&c, 3)}
	c.bound(todo)
	if n := len(c.refused) + len(todo.add) - len(todo.remove); n != MaxRefused {
		t.Errorf("%d would be refused, want %d", n, MaxRefused)
	}
	for r := range todo.remove {
		if c.refused[r].number > 10 {
			t.Errorf("the %dth goes, which is not one of the oldest", c.refused[r].number)
		}
	}
}

// A tenant with very many cut connections loses its own refusals and nobody else's.
func TestAFloodOfCutsDrivesOutNobodyElsesRefusals(t *testing.T) {
	c := cuts{log: slog.New(slog.NewTextHandler(t.Output(), nil)), refused: map[program.Refused]refusal{}}
	turn := func(add map[program.Refused]string) {
		t.Helper()
		todo := &plan{add: add, remove: map[program.Refused]bool{}}
		c.bound(todo)
		c.settle(todo)
		if len(c.refused) > MaxRefused {
			t.Fatalf("%d are refused", len(c.refused))
		}
	}
	quiet := map[program.Refused]string{}
	for i := range 100 {
		quiet[program.Refused{Protocol: inet.SCTP, SrcPort: uint16(i)}] = "quiet"
	}
	turn(quiet) // the oldest of all
	for i := range 20 {
		add := map[program.Refused]string{}
		for n := range maxCuts {
			add[program.Refused{Protocol: inet.TCP, SrcPort: uint16(n), DstPort: uint16(i)}] = "flood"
		}
		turn(add)
	}
	held := map[string]int{}
	for _, known := range c.refused {
		held[known.tenant]++
	}
	if held["quiet"] != 100 || held["flood"] != MaxRefused-100 {
		t.Errorf("refused are %v", held)
	}
	for r, known := range c.refused {
		if known.tenant == "flood" && r.DstPort < 4 {
			t.Fatalf("%+v is one of the oldest and still there", r)
		}
	}
}

func refusedMany(n int) map[program.Refused]refusal {
	m := map[program.Refused]refusal{}
	for i := range n {
		m[program.Refused{Protocol: inet.TCP, SrcPort: uint16(i), DstPort: uint16(i >> 16)}] = refusal{number: uint64(i)}
	}
	return m
}

func refusedMore(n int, tenant string) map[program.Refused]string {
	m := map[program.Refused]string{}
	for i := range n {
		m[program.Refused{Protocol: inet.UDP, SrcPort: uint16(i)}] = tenant
	}
	return m
}

func refusedFirst(c *cuts, n uint64) map[program.Refused]bool {
	m := map[program.Refused]bool{}
	for r, at := range c.refused {
		if at.number < n {
			m[r] = true
		}
	}
	return m
}

// Of very many refused connections a change has those judged that it concerns.
func TestAChangeHasTheRefusedConnectionsJudgedThatItConcerns(t *testing.T) {
	first, second, elsewhere := netip.MustParseAddr(first), netip.MustParseAddr(second), netip.MustParseAddr(elsewhere)
	pods := []program.Pod{{Addr: first, Name: "a/p", Tenant: "a", Ingress: "ingress4-a"},
		{Addr: second, Name: "b/p", Tenant: "b", Ingress: "ingress4-b"}}
	both := func() *program.Program {
		return &program.Program{Pods: slices.Clone(pods), Chains: []*program.Chain{
			{Name: "ingress4-a", Direction: program.Ingress, Family: inet.IPv4}, {Name: "ingress4-b", Direction: program.Ingress,
				Family: inet.IPv4}}}
	}
	at := func(a netip.Addr) program.Refused {
		return program.Refused{Protocol: inet.TCP, Src: a, Dst: elsewhere, SrcPort: 80, DstPort: 40000}
	}
	of := map[program.Refused]string{at(first): "a", at(second): "b"}
	opened := both()
	opened.Pods[0].Ingress = ""
	for _, tt := range []struct {
		name   string
		next   *program.Program
		node   []netip.Addr
		change func(c *cuts)
		judged string // whose are judged
	}{
		{"nothing", both(), nil, nil, ""},
		{"a is open", opened, nil, nil, "a"},
		{"the node has another address", both(), []netip.Addr{elsewhere}, nil, "a b"},
		{"an earlier process left one", both(), nil, func(c *cuts) { c.refused[at(second)] = refusal{} }, "b"},
		{"nothing was judged yet", both(), nil, func(c *cuts) { c.asked = asked{} }, "a b"},
	} {
		c := cuts{refused: map[program.Refused]refusal{}, release: time.NewTimer(time.Hour), lenient: time.Hour}
		ask := func(p *program.Program, node []netip.Addr) {
			todo := &plan{judge: cut.NewJudge(p, node, nil), node: node, remove: map[program.Refused]bool{}}
			if c.ask(p, map[netip.Addr]bool{}, todo); len(todo.remove) > 0 {
				t.Errorf("%s: %v go", tt.name, todo.remove)
			}
		}
		c.settle(&plan{add: of})
		ask(both(), nil)
		for r, known := range c.refused {
			if known.tenant != of[r] || !known.allowed.IsZero() {
				t.Errorf("%s: of %v is known %+v", tt.name, r, known)
			}
			known.tenant = "as it was"
			c.refused[r] = known
		}
		if tt.change != nil {
			tt.change(&c)
		}
		ask(tt.next, tt.node)
		var judged []string
		for r, known := range c.refused {
			if known.tenant != "as it was" || !known.allowed.IsZero() {
				judged = append(judged, of[r])
			}
		}
		slices.Sort(judged)
		if got := strings.Join(judged, " "); got != tt.judged {
			t.Errorf("%s: those of %q are judged, want %q", tt.name, got, tt.judged)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/netpol/program"
)

// cutting are the variants with the sets of cut connections.
func cutting() map[string]program.Node {
	return map[string]program.Node{"nat": {Cut: true, NoGuard: true, OpenUnknown: true},
		"guard": {Cut: true}, "filter": {Cut: true, FilterHook: true}}
}

func refused(p inet.Protocol, src, dst string) program.Refused {
	a, b := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return program.Refused{Protocol: p, Src: a.Addr(), Dst: b.Addr(), SrcPort: a.Port(), DstPort: b.Port()}
}

func someRefused() []program.Refused {
	return []program.Refused{
		refused(inet.TCP, "10.244.1.5:80", "10.244.2.9:40000"), refused(inet.TCP, "10.244.1.5:80", "10.244.2.9:40001"),
		refused(inet.UDP, "10.244.1.5:53", "10.244.2.9:40000"), refused(inet.SCTP, "10.244.1.5:80", "10.244.2.9:40000"),
		refused(inet.TCP, "[fd00::5]:80", "[fd00::9]:40000"), refused(inet.UDP, "[fd00::5]:80", "[fd00::9]:40000"),
		refused(inet.SCTP, "[fd00::5]:80", "[fd00::9]:40000"),
	}
}

func sortRefused(list []program.Refused) []program.Refused {
	slices.SortFunc(list, func(a, b program.Refused) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), a.Src.Compare(b.Src), cmp.Compare(a.DstPort, b.DstPort))
	})
	return list
}

// holds wants the kernel to refuse exactly that.
func holds(t *testing.T, c *nft.Conn, want []program.Refused) {
	t.Helper()
	got, err := ReadRefusals(c)
	if err != nil {
		t.Fatal(err)
	}
	same := gocmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := gocmp.Diff(sortRefused(want), sortRefused(got), same); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}

func TestTheRulesForCutConnectionsAreThoseOfTheNftProgramForOurText(t *testing.T) {
	for name, node := range cutting() {
		t.Run(name, func(t *testing.T) {
			byUs, ours := openIn(t)
			got := sameAsText(t, byUs, ours, Render(sample(), node))
			if n := strings.Count(got, "jump "+chainCut+" "); n != map[string]int{"nat": 1, "guard": 2, "filter": 1}[name] {
				t.Errorf("%d rules lead to the sets:\n%s", n, got)
			}
		})
	}
}

func TestWhatIsCutIsNotForTheProgramToSay(t *testing.T) {
	for name, node := range cutting() {
		t.Run(name, func(t *testing.T) {
			c, _ := openIn(t)
			table := Render(sample(), node)
			if err := c.Commit(JoinOps(nft.Diff(nil, table), CutOps(someRefused(), nil))); err != nil {
				t.Fatal(err)
			}
			holds(t, c, someRefused())
			actual, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			if ops := nft.Diff(actual, table); len(ops) > 0 {
				t.Errorf("elements of cut connections count as differences: %v", ops)
			}
			if got := Refusals(actual); len(got) != len(someRefused()) {
				t.Errorf("read with the table: %v", got)
			}
			gone := append(someRefused()[1:5:5], refused(inet.UDP, "10.0.0.1:1", "10.0.0.2:2"), refused(inet.TCP, "[fd00::1]:1", "[fd00::2]:2"))
			if err := c.Commit(CutOps(someRefused()[:1], gone)); err != nil {
				t.Fatalf("taking out what is there and what is not, adding what is there: %v", err)
			}
			holds(t, c, append(someRefused()[5:], someRefused()[0]))
			node.Cut = false
			if err := c.Commit(nft.Diff(table, Render(sample(), node))); err != nil {
				t.Fatalf("taking the rules out: %v", err)
			}
			holds(t, c, nil)
		})
	}
}

// When the table is replaced as a whole, in one transaction, what is refused
// comes along.
func TestWhatIsCutOutlivesTheReplacementOfTheTable(t *testing.T) {
	c, ns := openIn(t)
	table := Render(sample(), cutting()["nat"])
	if err := c.Commit(JoinOps(nft.Diff(nil, table), CutOps(someRefused(), nil))); err != nil {
		t.Fatal(err)
	}
	nftrun.Run(t, ns, "", "add table inet podwall { flags dormant; }")
	actual, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	ops := JoinOps(nft.Diff(actual, table), CutOps(Refusals(actual), nil))
	if ops[0].Kind != nft.DeleteTable {
		t.Fatalf("the table is not replaced: %v", ops)
	}
	if err := c.Commit(ops); err != nil {
		t.Fatal(err)
	}
	holds(t, c, someRefused())
}

func TestAForeignSetWithTheNameOfOursReplacesTheTable(t *testing.T) {
	table := Render(sample(), cutting()["nat"])
	c, ns := openIn(t)
	nftrun.Run(t, ns, "table inet podwall { set cut4-udp { type ipv4_addr . inet_service . ipv4_addr . inet_service; }; }", "-f", "-")
	actual, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	if ops := nft.Diff(actual, table); len(ops) == 0 || ops[0].Kind != nft.DeleteTable {
		t.Errorf("a set without a timeout is taken for ours")
	}
}

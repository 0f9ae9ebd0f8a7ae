// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/netpol/program"
)

// sample is a program with every kind of rule and set.
func sample() *program.Program {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	var many []program.Rule
	for port := range uint16(20) {
		many = append(many, program.Rule{Protocol: inet.TCP, Ports: inet.PortRange{First: 8000 + port, Last: 8000 + port},
			PeerSet: "pods4-web", Comment: "shop/many ingress[0]"})
	}
	many = append(many, program.Rule{Protocol: inet.UDP, Block: program.Block{CIDR: prefix("10.0.0.0/8")}})
	return &program.Program{
		Pods: []program.Pod{
			{Addr: addr("10.244.1.5"), Name: "shop/web", Ingress: "ingress4-web", Egress: "egress4-web"},
			{Addr: addr("10.244.1.6"), Name: "shop/open"},
			{Addr: addr("10.244.1.7"), Name: "shop/many", Ingress: "ingress4-many"},
			{Addr: addr("fd00:244:1::5"), Name: "shop/web", Ingress: "ingress6-web"},
		},
		Chains: []*program.Chain{
			{Name: "egress4-web", Direction: program.Egress, Family: inet.IPv4, Rules: []program.Rule{
				{Protocol: inet.UDP, Ports: inet.PortRange{First: 53, Last: 53}},
				{Protocol: inet.TCP, DestSet: "ports4-http"},
				{Protocol: inet.TCP, PortSet: "portlist-a", PeerSet: "blocks4-a"},
				{Block: program.Block{CIDR: prefix("169.254.0.0/16")}, Place: program.Elsewhere},
				{Block: program.Block{CIDR: prefix("169.254.0.0/16")}, Place: program.OnNode},
			}},
			{Name: "ingress4-many", Direction: program.Ingress, Family: inet.IPv4, Rules: many},
			{Name: "ingress4-web", Direction: program.Ingress, Family: inet.IPv4, Rules: []program.Rule{
				{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 90},
					Block: program.Block{CIDR: prefix("14.215.0.0/16"),
						Except: []netip.Prefix{prefix("14.215.1.0/24"), prefix("14.215.2.2/32")}}, Comment: "shop/web ingress[0]"},
				{Protocol: inet.SCTP, Block: program.Block{CIDR: prefix("0.0.0.0/0")}},
				{Block: program.Block{CIDR: prefix("169.254.0.0/16")}, Place: program.Elsewhere},
				{PeerSet: "pods4-web"},
			}},
			{Name: "ingress6-web", Direction: program.Ingress, Family: inet.IPv6, Rules: []program.Rule{
				{Protocol: inet.TCP, Ports: inet.PortRange{First: 80, Last: 80}, Block: program.Block{CIDR: prefix("2001:db8::/32")}},
				{Protocol: inet.TCP, DestSet: "ports6-http", PeerSet: "pods6-web"},
			}},
		},
		Sets: []*program.Set{
			{Name: "blocks4-a", Kind: inet.AddrRanges, Family: inet.IPv4, Ranges: []inet.Range{
				inet.AddrRange(prefix("1.2.3.4/32")), inet.AddrRange(prefix("10.0.0.0/8")), addrRange("11.200.0.1",
					"11.200.0.6"), inet.AddrRange(prefix("224.0.0.0/3"))}},
			{Name: "pods4-web", Kind: inet.Addrs, Family: inet.IPv4, Comment: `pods app=web in "all"`,
				Elements: elementsOf(inet.Element{Addr: addr("10.244.1.5")}, inet.Element{Addr: addr("10.244.2.9")})},
			{Name: "pods6-web", Kind: inet.Addrs, Family: inet.IPv6},
			{Name: "portlist-a", Kind: inet.PortRanges, Ranges: []inet.Range{portRange(53, 53), portRange(80, 90), portRange(60000, 65535)}},
			{Name: "ports4-http", Kind: inet.AddrPorts, Family: inet.IPv4, Elements: elementsOf(inet.Element{Addr: addr("10.244.1.5"), Port: 8080})},
			{Name: "ports6-http", Kind: inet.AddrPorts, Family: inet.IPv6,
				Elements: elementsOf(inet.Element{Addr: addr("fd00:244:1::5"), Port: 8080})},
		},
	}
}

func addrRange(first, last string) inet.Range {
	return inet.Range{First: inet.Element{Addr: netip.MustParseAddr(first)}, Last: inet.Element{Addr: netip.MustParseAddr(last)}}
}

func portRange(first, last uint16) inet.Range {
	return inet.Range{First: inet.Element{Port: first}, Last: inet.Element{Port: last}}
}

func elementsOf(list ...inet.Element) inet.Elements {
	var s inet.Elements
	for _, e := range list {
		s = s.With(e)
	}
	return s
}

// nodes are the variants of the ruleset.
func nodes() map[string]program.Node {
	return map[string]program.Node{
		"open": {NoGuard: true, OpenUnknown: true, Ingress: []string{"veth1"}, Egress: []string{"veth1", "kube-bridge"}},
		"guard": {OpenUnknown: true, Ingress: []string{"veth1"},
			Restore: []program.Saved{{Name: "kube-bridge", Text: "nf_call_iptables=0"}}},
		"filter": {FilterHook: true, ClosedBridges: []string{"kube-bridge"}},
		"denied": {DeniedGroup: 100},
		"closed": {Cut: true, Open: []string{"eth0", "docker0"}, ClosedBridges: []string{"kube-bridge"},
			Attached: []program.Attachment{
				{Link: "veth1", Addr: netip.MustParseAddr("10.244.1.5")}, {Link: "veth1", Addr: netip.MustParseAddr("fd00:244:1::5")},
				{Link: "kube-bridge", Addr: netip.MustParseAddr("10.244.1.6"), Port: "veth2"}}},
	}
}

func openIn(t testing.TB) (*nft.Conn, *netns.NS) {
	t.Helper()
	ns := nftrun.Namespace(t)
	c, err := Open(ns.FD())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, ns
}

func TestWhatIsCommittedReadsBackWithoutADifference(t *testing.T) {
	for name, node := range nodes() {
		t.Run(name, func(t *testing.T) {
			c, _ := openIn(t)
			want := Render(sample(), node)
			if err := c.Commit(nft.Diff(nil, want)); err != nil {
				t.Fatal(err)
			}
			got, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range nft.Diff(got, want) {
				t.Errorf("difference after reading back: %s", op)
			}
		})
	}
}

func TestEveryVariantCanBecomeEveryOther(t *testing.T) {
	c, _ := openIn(t)
	var actual *nft.Table
	for _, step := range []string{"nat", "guard", "filter", "closed", "nat", "filter", "closed", "filter", "nat"} {
		want := Render(sample(), nodes()[step])
		if err := c.Commit(nft.Diff(actual, want)); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		got, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if ops := nft.Diff(got, want); len(ops) > 0 {
			t.Fatalf("%s: difference after reading back: %v", step, ops)
		}
		actual = want
	}
	empty := Render(&program.Program{}, nodes()["nat"])
	if err := c.Commit(nft.Diff(actual, empty)); err != nil {
		t.Fatalf("emptying: %v", err)
	}
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(); got != nil || err != nil {
		t.Fatalf("after Delete: %v, %v", got, err)
	}
}

// sameAsText commits a table and wants that the kernel lists what it lists of the
// nft program for our text. It returns the listing.
func sameAsText(t *testing.T, byUs *nft.Conn, ours *netns.NS, want *nft.Table) string {
	t.Helper()
	if err := byUs.Commit(nft.Diff(nil, want)); err != nil {
		t.Fatal(err)
	}
	theirs := nftrun.Namespace(t)
	nftrun.Run(t, theirs, want.String(), "-f", "-")
	got, expected := nftrun.Run(t, ours, "", "list", "ruleset"), nftrun.Run(t, theirs, "", "list", "ruleset")
	if diff := cmp.Diff(nftrun.Lines(expected), nftrun.Lines(got)); diff != "" {
		t.Errorf("listing, nft -f of our text (-), our netlink messages (+):\n%s", diff)
	}
	return got
}

func TestOurExpressionsAreThoseOfTheNftProgramForOurText(t *testing.T) {
	for name, node := range nodes() {
		t.Run(name, func(t *testing.T) {
			byUs, ours := openIn(t)
			sameAsText(t, byUs, ours, Render(sample(), node))
		})
	}
}

// A change with more elements than fit one transaction is cut. Wherever it is
// cut, what packets meet is the old rules or the new ones.
func TestAChangeThatIsCutNeverEmptiesAChainInUse(t *testing.T) {
	c, _ := openIn(t)
	c.LimitBatch(1)
	old := Render(sample(), nodes()["nat"])
	if err := c.Commit(nft.Diff(nil, old)); err != nil {
		t.Fatal(err)
	}
	p := sample()
	p.Chains[2] = &program.Chain{Name: "ingress4-web2", Direction: program.Ingress, Family: inet.IPv4}
	p.Pods[0].Ingress = "ingress4-web2"
	now := Render(p, nodes()["nat"])
	swapped, emptied := -1, -1
	for i, op := range nft.Diff(old, now) {
		switch {
		case op.Kind == nft.SwapElements && op.Set.Name == "pod-ingress4":
			swapped = i
		case (op.Kind == nft.FlushChain || op.Kind == nft.RetireChain) && op.Chain.Name == "ingress4-web":
			emptied = i
		}
	}
	if swapped < 0 || emptied < swapped {
		t.Errorf("the map leaves the chain in operation %d, the chain is emptied in %d", swapped, emptied)
	}
	if err := c.Commit(nft.Diff(old, now)); err != nil {
		t.Fatal(err)
	}
	got, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	if ops := nft.Diff(got, now); len(ops) > 0 {
		t.Errorf("difference after reading back: %v", ops)
	}
}

// A change that is told to end begins no further transaction, and what it did is
// whole: the next change leads on from there.
func TestAChangeEndsBetweenTransactions(t *testing.T) {
	c, _ := openIn(t)
	c.LimitBatch(1)
	want := Render(sample(), nodes()["nat"])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.CommitUntil(ctx, nft.Diff(nil, want)); !errors.Is(err, context.Canceled) || c.Transactions() != 0 {
		t.Errorf("after the end %d transactions were begun: %v", c.Transactions(), err)
	}
	if err := c.Renew(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(); got != nil || err != nil {
		t.Fatalf("a table is there, or cannot be asked for: %v", err)
	}
	if err := c.Commit(nft.Diff(nil, want)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(); err != nil || len(nft.Diff(got, want)) > 0 {
		t.Errorf("the next change left %v, %v", nft.Diff(got, want), err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/program"
)

// sample is a program with every kind of rule and set.
func sample() *program.Program {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	var many []program.Rule
	for port := range uint16(20) {
		many = append(many, program.Rule{Protocol: program.TCP, Ports: program.PortRange{First: 8000 + port, Last: 8000 + port}, PeerSet: "pods4-web", Comment: "shop/many ingress[0]"})
	}
	many = append(many, program.Rule{Protocol: program.UDP, Block: program.Block{CIDR: prefix("10.0.0.0/8")}})
	return &program.Program{
		Pods: []program.Pod{
			{Addr: addr("10.244.1.5"), Name: "shop/web", Ingress: "ingress4-web", Egress: "egress4-web"},
			{Addr: addr("10.244.1.6"), Name: "shop/open"},
			{Addr: addr("10.244.1.7"), Name: "shop/many", Ingress: "ingress4-many"},
			{Addr: addr("fd00:244:1::5"), Name: "shop/web", Ingress: "ingress6-web"},
		},
		Chains: []*program.Chain{
			{Name: "egress4-web", Direction: program.Egress, Family: program.IPv4, Rules: []program.Rule{
				{Protocol: program.UDP, Ports: program.PortRange{First: 53, Last: 53}},
				{Protocol: program.TCP, DestSet: "ports4-http"},
				{Protocol: program.TCP, PortSet: "portlist-a", PeerSet: "blocks4-a"},
			}},
			{Name: "ingress4-many", Direction: program.Ingress, Family: program.IPv4, Rules: many},
			{Name: "ingress4-web", Direction: program.Ingress, Family: program.IPv4, Rules: []program.Rule{
				{Protocol: program.TCP, Ports: program.PortRange{First: 80, Last: 90}, Block: program.Block{CIDR: prefix("14.215.0.0/16"), Except: []netip.Prefix{prefix("14.215.1.0/24"), prefix("14.215.2.2/32")}}, Comment: "shop/web ingress[0]"},
				{Protocol: program.SCTP, Block: program.Block{CIDR: prefix("0.0.0.0/0")}},
				{PeerSet: "pods4-web"},
			}},
			{Name: "ingress6-web", Direction: program.Ingress, Family: program.IPv6, Rules: []program.Rule{
				{Protocol: program.TCP, Ports: program.PortRange{First: 80, Last: 80}, Block: program.Block{CIDR: prefix("2001:db8::/32")}},
				{Protocol: program.TCP, DestSet: "ports6-http", PeerSet: "pods6-web"},
			}},
		},
		Sets: []*program.Set{
			{Name: "blocks4-a", Kind: program.AddrRanges, Family: program.IPv4, Ranges: []program.Range{
				program.AddrRange(prefix("1.2.3.4/32")), program.AddrRange(prefix("10.0.0.0/8")), addrRange("11.200.0.1", "11.200.0.6"), program.AddrRange(prefix("224.0.0.0/3"))}},
			{Name: "pods4-web", Kind: program.Addrs, Family: program.IPv4, Comment: `pods app=web in "all"`, Elements: elementsOf(program.Element{Addr: addr("10.244.1.5")}, program.Element{Addr: addr("10.244.2.9")})},
			{Name: "pods6-web", Kind: program.Addrs, Family: program.IPv6},
			{Name: "portlist-a", Kind: program.PortRanges, Ranges: []program.Range{portRange(53, 53), portRange(80, 90), portRange(60000, 65535)}},
			{Name: "ports4-http", Kind: program.AddrPorts, Family: program.IPv4, Elements: elementsOf(program.Element{Addr: addr("10.244.1.5"), Port: 8080})},
			{Name: "ports6-http", Kind: program.AddrPorts, Family: program.IPv6, Elements: elementsOf(program.Element{Addr: addr("fd00:244:1::5"), Port: 8080})},
		},
	}
}

func addrRange(first, last string) program.Range {
	return program.Range{First: program.Element{Addr: netip.MustParseAddr(first)}, Last: program.Element{Addr: netip.MustParseAddr(last)}}
}

func portRange(first, last uint16) program.Range {
	return program.Range{First: program.Element{Port: first}, Last: program.Element{Port: last}}
}

func elementsOf(list ...program.Element) program.Elements {
	var s program.Elements
	for _, e := range list {
		s = s.With(e)
	}
	return s
}

// nodes are the variants of the ruleset.
func nodes() map[string]Node {
	return map[string]Node{
		"nat":    {Ingress: []string{"veth1"}, Egress: []string{"veth1", "kube-bridge"}},
		"guard":  {Guard: true, Ingress: []string{"veth1"}, Restore: []Entry{{Key: Key{Iface: "kube-bridge"}, Comment: "nf_call_iptables=0"}}},
		"filter": {FilterHook: true, Closed: true, Carried: []string{"kube-bridge"}},
		"closed": {Guard: true, Closed: true, Cut: true, Open: []string{"eth0", "docker0"}, Carried: []string{"kube-bridge"}, Attached: []Attachment{
			{Link: "veth1", Addr: netip.MustParseAddr("10.244.1.5")}, {Link: "veth1", Addr: netip.MustParseAddr("fd00:244:1::5")},
			{Link: "kube-bridge", Addr: netip.MustParseAddr("10.244.1.6"), Port: "veth2"}}},
	}
}

func openIn(t testing.TB) (*Conn, *netns.NS) {
	t.Helper()
	ns, err := netns.New()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
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
			if err := c.Commit(Diff(nil, want)); err != nil {
				t.Fatal(err)
			}
			got, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			for _, op := range Diff(got, want) {
				t.Errorf("difference after reading back: %s", op)
			}
		})
	}
}

func TestEveryVariantCanBecomeEveryOther(t *testing.T) {
	c, _ := openIn(t)
	var actual *Table
	for _, step := range []string{"nat", "guard", "filter", "closed", "nat", "filter", "closed", "filter", "nat"} {
		want := Render(sample(), nodes()[step])
		if err := c.Commit(Diff(actual, want)); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		got, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if ops := Diff(got, want); len(ops) > 0 {
			t.Fatalf("%s: difference after reading back: %v", step, ops)
		}
		actual = want
	}
	empty := Render(&program.Program{}, nodes()["nat"])
	if err := c.Commit(Diff(actual, empty)); err != nil {
		t.Fatalf("emptying: %v", err)
	}
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(); got != nil || err != nil {
		t.Fatalf("after Delete: %v, %v", got, err)
	}
}

func TestOurExpressionsAreThoseOfTheNftProgramForOurText(t *testing.T) {
	for name, node := range nodes() {
		t.Run(name, func(t *testing.T) {
			want := Render(sample(), node)
			byUs, ours := openIn(t)
			if err := byUs.Commit(Diff(nil, want)); err != nil {
				t.Fatal(err)
			}
			_, theirs := openIn(t)
			nft(t, theirs, want.String(), "-f", "-")
			got, expected := nft(t, ours, "", "list", "ruleset"), nft(t, theirs, "", "list", "ruleset")
			if diff := cmp.Diff(canonical(expected), canonical(got)); diff != "" {
				t.Errorf("listing, nft -f of our text (-), our netlink messages (+):\n%s", diff)
			}
		})
	}
}

func TestTheBridgesTableIsThatOfItsText(t *testing.T) {
	byUs, ours := openIn(t)
	if err := byUs.DropStackedTags(true); err != nil {
		t.Fatal(err)
	}
	_, theirs := openIn(t)
	nft(t, theirs, BridgeText, "-f", "-")
	got, want := nft(t, ours, "", "list", "ruleset"), nft(t, theirs, "", "list", "ruleset")
	if diff := cmp.Diff(canonical(want), canonical(got)); diff != "" {
		t.Errorf("listing, nft -f of our text (-), our netlink messages (+):\n%s", diff)
	}
	if right, exists, err := byUs.DropsStackedTags(); !right || !exists || err != nil {
		t.Errorf("after writing: right %t, exists %t, %v", right, exists, err)
	}
	nft(t, ours, "", "flush", "chain", "bridge", TableName, chainStacked)
	if right, exists, err := byUs.DropsStackedTags(); right || !exists || err != nil {
		t.Errorf("after a foreign flush: right %t, exists %t, %v", right, exists, err)
	}
	if err := byUs.DropStackedTags(false); err != nil {
		t.Fatal(err)
	}
	if _, exists, err := byUs.DropsStackedTags(); exists || err != nil {
		t.Errorf("after removing: exists %t, %v", exists, err)
	}
}

func nft(t *testing.T, ns *netns.NS, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("nft", args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := ns.Start(cmd); err != nil {
		t.Fatalf("nft is needed (Debian package nftables): %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft %v: %v\n%s\n%s", args, err, out.String(), stdin)
	}
	return out.String()
}

// canonical makes listings comparable: the order of elements inside a hash is
// the kernel's.
func canonical(listing string) []string {
	text := strings.NewReplacer("elements = {", "", "}", "", ",", "\n").Replace(listing)
	var lines []string
	for _, l := range strings.Split(text, "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return sortUnique(lines)
}

func sortUnique(lines []string) []string {
	slices.Sort(lines)
	return slices.Compact(lines)
}

// A change with more elements than fit one transaction is cut. Wherever it is
// cut, what packets meet is the old rules or the new ones.
func TestAChangeThatIsCutNeverEmptiesAChainInUse(t *testing.T) {
	c, _ := openIn(t)
	c.batch = 1
	old := Render(sample(), nodes()["nat"])
	if err := c.Commit(Diff(nil, old)); err != nil {
		t.Fatal(err)
	}
	p := sample()
	p.Chains[2] = &program.Chain{Name: "ingress4-web2", Direction: program.Ingress, Family: program.IPv4}
	p.Pods[0].Ingress = "ingress4-web2"
	now := Render(p, nodes()["nat"])
	swapped, emptied := -1, -1
	for i, op := range Diff(old, now) {
		switch {
		case op.Kind == SwapElements && op.Set.Name == "to4":
			swapped = i
		case (op.Kind == FlushChain || op.Kind == RetireChain) && op.Chain.Name == "ingress4-web":
			emptied = i
		}
	}
	if swapped < 0 || emptied < swapped {
		t.Errorf("the map leaves the chain in operation %d, the chain is emptied in %d", swapped, emptied)
	}
	if err := c.Commit(Diff(old, now)); err != nil {
		t.Fatal(err)
	}
	got, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	if ops := Diff(got, now); len(ops) > 0 {
		t.Errorf("difference after reading back: %v", ops)
	}
}

// A change that is told to end begins no further transaction, and what it did is
// whole: the next change leads on from there.
func TestAChangeEndsBetweenTransactions(t *testing.T) {
	c, _ := openIn(t)
	c.batch = 1
	want := Render(sample(), nodes()["nat"])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.CommitUntil(ctx, Diff(nil, want)); !errors.Is(err, context.Canceled) || c.Transactions() != 0 {
		t.Errorf("after the end %d transactions were begun: %v", c.Transactions(), err)
	}
	if err := c.Renew(); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(); got != nil || err != nil {
		t.Fatalf("a table is there, or cannot be asked for: %v", err)
	}
	if err := c.Commit(Diff(nil, want)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Read(); err != nil || len(Diff(got, want)) > 0 {
		t.Errorf("the next change left %v, %v", Diff(got, want), err)
	}
}

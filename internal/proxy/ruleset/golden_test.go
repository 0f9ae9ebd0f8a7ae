// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/proxy/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/ruleset"
)

var update = flag.Bool("update", false, "write the golden texts anew")

// The rulesets are read by people: a change of them is reviewed as text. Rewrite with: make golden
func TestGoldenRulesets(t *testing.T) {
	for _, e := range examples() {
		golden(t, fmt.Sprintf("example%d.nft", e.family), e.program(), ruleset.Settings{})
		golden(t, fmt.Sprintf("ipvs%d.nft", e.family), ipvs.Of(e.program()).Tables, ruleset.Settings{IPVS: true})
	}
}

func golden(t *testing.T, name string, p *program.Program, s ruleset.Settings) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	got := ruleset.Render(p, s).String()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// connIn opens a connection for a family's table in a namespace.
func connIn(t *testing.T, ns *netns.NS, f inet.Family) *nft.Conn {
	t.Helper()
	c, err := nft.Open(ns.FD(), ruleset.Table(f))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the namespace goes anyway
	return c
}

// inKernel wants the kernel to have exactly the table.
func inKernel(t *testing.T, how string, c *nft.Conn, want *nft.Table) {
	t.Helper()
	got, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range nft.Diff(got, want) {
		t.Errorf("%s: difference: %s", how, op)
	}
	if diff := cmp.Diff(setsOf(want), setsOf(got)); diff != "" {
		t.Errorf("%s: sets (-written +read):\n%s", how, diff)
	}
}

func setsOf(t *nft.Table) string { return (&nft.Table{Counters: t.Counters, Sets: t.Sets}).String() }

// What is written is read back without a difference. nft lists it without an abort, and loads its own
// listing and our text into the same table.
func TestRulesetsGoThroughTheKernelAndThroughText(t *testing.T) {
	for _, e := range examples() {
		want := ruleset.Render(e.program(), ruleset.Settings{})
		ns := nftrun.Namespace(t)
		c := connIn(t, ns, e.family)
		if err := c.Commit(nft.Diff(nil, want)); err != nil {
			t.Fatal(err)
		}
		inKernel(t, "netlink", c, want)
		listing := nftrun.Run(t, ns, "", "list", "ruleset")
		if e.family == inet.IPv6 {
			p := withoutSticky(e.program()) // nft 1.0.6 lists their rules, and cannot load them
			want = ruleset.Render(p, ruleset.Settings{})
			got, err := c.Read()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Commit(nft.Diff(got, want)); err != nil {
				t.Fatal(err)
			}
			listing = nftrun.Run(t, ns, "", "list", "ruleset")
		}
		for how, text := range map[string]string{"text": want.String(), "listing": listing} {
			other := nftrun.Namespace(t)
			nftrun.Run(t, other, text, "-f", "-")
			inKernel(t, how, connIn(t, other, e.family), want)
		}
	}
}

// The same of tables that leave connections to IPVS, and of the way from tables that do not and back.
func TestTablesThatLeaveConnectionsGoThroughTheKernel(t *testing.T) {
	for _, e := range examples() {
		alone := ruleset.Render(e.program(), ruleset.Settings{})
		beside := ruleset.Render(ipvs.Of(e.program()).Tables, ruleset.Settings{IPVS: true})
		ns := nftrun.Namespace(t)
		c := connIn(t, ns, e.family)
		var is *nft.Table
		for _, want := range []*nft.Table{beside, alone, beside} {
			if err := c.Commit(nft.Diff(is, want)); err != nil {
				t.Fatal(err)
			}
			inKernel(t, "netlink", c, want)
			nftrun.Run(t, ns, "", "list", "ruleset")
			is = want
		}
	}
}

// withoutSticky returns the program without fronts with affinity.
func withoutSticky(p *program.Program) *program.Program {
	next := *p
	for r := range p.Routes.All() {
		if r.Sticky > 0 {
			next.Routes = next.Routes.Without(r)
		}
	}
	for s := range p.Slots.All() {
		if s.Sticky > 0 {
			next.Slots = next.Slots.Without(s)
		}
	}
	return &next
}

// A name of nft's language, or one that is too long, would make a table that nobody can load.
func TestNamesAreShortEnough(t *testing.T) {
	const most = 127 // of nft before 1.0
	pick := program.Pick{First: 65534, Count: 65534, Masquerade: program.Always}
	other := pick
	other.Count--
	e := examples()[1]
	p := e.program()
	widest := netip.MustParseAddr("2a2a:2a2a:2a2a:2a2a:2a2a:2a2a:2a2a:2a2a")
	long := program.Front{Addr: widest, Protocol: inet.SCTP, Port: 65535}
	p.Routes = p.Routes.With(program.Route{Front: long, Inside: pick, Outside: other, Admission: "0123456789abcdef",
		Sticky: 1})
	p.Slots = p.Slots.With(program.Slot{Front: long, Sticky: 1, Backend: program.Backend{Addr: widest, Port: 65535}})
	for _, c := range ruleset.Render(p, ruleset.Settings{}).Chains {
		if len(c.Name) > most || strings.Contains(c.Name, ":") {
			t.Errorf("a chain has the name %q of %d bytes", c.Name, len(c.Name))
		}
	}
}

// The range of this node's pods is compared first only if it is one of the cluster's: else its pods are strangers.
func TestOnlyRangesOfTheClusterAreComparedFirst(t *testing.T) {
	for _, e := range examples() {
		p := e.program()
		first := "saddr != " + p.NodePods[0].String()
		if text := ruleset.Render(p, ruleset.Settings{}).String(); !strings.Contains(text, first) {
			t.Errorf("%s is not compared first", p.NodePods[0])
		}
		var others []netip.Prefix
		for _, r := range p.ClusterPods {
			if !r.Overlaps(p.NodePods[0]) {
				others = append(others, r)
			}
		}
		p.ClusterPods = others
		if text := ruleset.Render(p, ruleset.Settings{}).String(); strings.Contains(text, first) {
			t.Errorf("%s is compared, which is no range of the cluster", p.NodePods[0])
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/lab/netns"
)

func bridged() Node {
	addr := netip.MustParseAddr
	return Node{Attached: []Attachment{
		{Link: "cni0", Addr: addr("10.244.1.6"), Port: "veth6"}, {Link: "cni0", Addr: addr("fd00:244:1::6"), Port: "veth6"},
		{Link: "cni0", Addr: addr("10.244.1.5"), Port: "veth5"}, {Link: "cni0", Addr: addr("10.244.1.7")}, {Link: "veth9", Addr: addr("10.244.1.9")},
	}}
}

func TestOnlyKnownPortsAreBound(t *testing.T) {
	if got := RenderPorts(filter.IPv6, Node{Attached: bridged().Attached[2:]}); got != nil {
		t.Errorf("no port has an IPv6 address, got\n%s", got)
	}
	const want = `	map ports {
		type ipv4_addr : verdict
		comment "which bridge port an address belongs to"
		elements = { 10.244.1.5 : jump port-veth5,
			     10.244.1.6 : jump port-veth6 }
	}
`
	if got := RenderPorts(filter.IPv4, bridged()).String(); !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it\n%s", got, want)
	}
}

// What is written reads back the same, both as nat and as filter chains, and one
// becomes the other. The nft program can list it.
func TestPortTablesReadBackWithoutADifference(t *testing.T) {
	conn, ns := openIn(t)
	for _, f := range filter.Families {
		var actual *Table
		for _, hook := range []bool{false, true, false} {
			node := bridged()
			node.FilterHook = hook
			desired, c := RenderPorts(f, node), conn.Ports(f)
			if err := c.Commit(Diff(actual, desired)); err != nil {
				t.Fatal(err)
			}
			var err error
			if actual, err = c.Read(); err != nil {
				t.Fatal(err)
			}
			if ops := Diff(actual, desired); len(ops) > 0 {
				t.Errorf("%v\n%s", ops, cmp.Diff(desired.String(), actual.String()))
			}
		}
	}
	if out, err := list(ns); err != nil || strings.Count(out, "physdev") != 5 {
		t.Errorf("nft lists %v\n%s", err, out)
	}
	if s, err := conn.Survey(); err != nil || len(s.Before) > 0 {
		t.Errorf("our own chains count as those of others: %v %v", s.Before, err)
	}
}

func list(ns *netns.NS) (string, error) {
	var out strings.Builder
	cmd := exec.Command("nft", "list", "ruleset")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

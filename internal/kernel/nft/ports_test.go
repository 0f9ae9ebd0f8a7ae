// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/program"
)

func bridged() Node {
	addr := netip.MustParseAddr
	return Node{Ported: []Attachment{
		{Link: "cni0", Addr: addr("10.244.1.6"), Port: "veth6"}, {Link: "cni0", Addr: addr("fd00:244:1::6"), Port: "veth6"},
		{Link: "cni0", Addr: addr("10.244.1.5"), Port: "veth5"}, {Link: "cni0", Addr: addr("10.244.1.7")}, {Link: "veth9", Addr: addr("10.244.1.9")},
	}}
}

func TestOnlyKnownPortsAreBound(t *testing.T) {
	if got := RenderPorts(program.IPv6, Node{Ported: bridged().Ported[2:]}); got != nil {
		t.Errorf("no port has an IPv6 address, got\n%s", got)
	}
	const want = `table ip podwall {
	counter drop-port {
	}

	map ports {
		type ipv4_addr : verdict
		comment "which bridge port an address belongs to"
		elements = { 10.244.1.5 : jump port-veth5,
			     10.244.1.6 : jump port-veth6 }
	}

	chain input {
		type nat hook input priority -191; policy accept;
		ip saddr vmap @ports
	}

	chain postrouting {
		type nat hook postrouting priority -191; policy accept;
		ip saddr vmap @ports
		meta iif 0 xt match "physdev" /* from a bridge port */ fib saddr type local goto forged comment "a bridged packet with an address of the node"
	}

	chain prerouting {
		type nat hook prerouting priority -191; policy accept;
		ip daddr 255.255.255.255 ip saddr vmap @ports
		ip daddr 224.0.0.0/4 ip saddr vmap @ports
		fib daddr type broadcast ip saddr vmap @ports
	}

	chain forged {
		counter name drop-port drop
	}

	chain port-veth5 {
		xt match "physdev" /* from another bridge port than veth5 */ goto forged
	}

	chain port-veth6 {
		xt match "physdev" /* from another bridge port than veth6 */ goto forged
	}
}
`
	if diff := cmp.Diff(want, RenderPorts(program.IPv4, bridged()).String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The bytes of struct xt_physdev_info: the name, its mask with the final zero,
// the same for the output, what is inverted (1: the input), and what is asked
// (1: which input, 8: whether there is one).
func TestThePhysdevMatch(t *testing.T) {
	for other, want := range map[string]string{
		"":      strings.Repeat("00", 65) + "08" + strings.Repeat("00", 6),
		"veth5": "7665746835" + strings.Repeat("00", 11) + strings.Repeat("ff", 6) + strings.Repeat("00", 10) + strings.Repeat("00", 32) + "0109" + strings.Repeat("00", 6),
	} {
		list := encodeRule(Rule{Statements: []Statement{MatchBridgePort{Other: other}}})
		m, ok := list[0].(*expr.Match)
		if !ok || m.Name != "physdev" || m.Rev != 0 {
			t.Fatalf("got %+v", list[0])
		}
		if got := fmt.Sprintf("%x", []byte(*m.Info.(*xt.Unknown))); got != want {
			t.Errorf("%q: %s, want %s", other, got, want)
		}
	}
}

// What is written reads back the same, both as nat and as filter chains, and one
// becomes the other. The nft program can list it.
func TestPortTablesReadBackWithoutADifference(t *testing.T) {
	conn, ns := openIn(t)
	for _, f := range program.Families {
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
	if s, err := conn.Survey(nobody); err != nil || len(s.Before) > 0 {
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

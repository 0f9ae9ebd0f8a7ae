// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/netpol/program"
)

func onBridges() program.Node {
	addr := netip.MustParseAddr
	return program.Node{Ported: []program.Attachment{
		{Link: "cni0", Addr: addr("10.244.1.6"), Port: "veth6"}, {Link: "cni0", Addr: addr("fd00:244:1::6"), Port: "veth6"},
		{Link: "cni0", Addr: addr("10.244.1.5"), Port: "veth5"}, {Link: "cni0", Addr: addr("10.244.1.7")}, {Link: "veth9", Addr: addr("10.244.1.9")},
	}}
}

func TestOnlyKnownPortsAreBound(t *testing.T) {
	if got := RenderPorts(inet.IPv6, program.Node{Ported: onBridges().Ported[2:]}); got != nil {
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
	if diff := cmp.Diff(want, RenderPorts(inet.IPv4, onBridges()).String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is written reads back the same, both as nat and as filter chains, and one
// becomes the other. The nft program can list it.
func TestPortTablesReadBackWithoutADifference(t *testing.T) {
	conn, ns := openIn(t)
	for _, f := range inet.Families {
		var actual *nft.Table
		for _, hook := range []bool{false, true, false} {
			node := onBridges()
			node.FilterHook = hook
			desired, c := RenderPorts(f, node), conn.Of(PortTable(f))
			if err := c.Commit(nft.Diff(actual, desired)); err != nil {
				t.Fatal(err)
			}
			var err error
			if actual, err = c.Read(); err != nil {
				t.Fatal(err)
			}
			if ops := nft.Diff(actual, desired); len(ops) > 0 {
				t.Errorf("%v\n%s", ops, cmp.Diff(desired.String(), actual.String()))
			}
		}
	}
	if out, err := list(ns); err != nil || strings.Count(out, "physdev") != 5 {
		t.Errorf("nft lists %v\n%s", err, out)
	}
	if s, err := conn.Survey(PriorityNAT, func(string) bool { return false }); err != nil || len(s.Before) > 0 {
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

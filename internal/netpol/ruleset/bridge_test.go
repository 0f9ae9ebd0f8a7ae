// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
	"github.com/podwall/podwall/internal/netpol/program"
)

func onBridges() program.Node {
	addr := netip.MustParseAddr
	five, six := inet.Hardware{0x02, 0, 0, 0, 0, 5}, inet.Hardware{0x02, 0, 0, 0, 0, 6}
	return program.Node{PodBridges: []string{"cni0"}, OtherPorts: []string{"gw0-port"}, UplinkPorts: []string{"eth1"},
		Owned: []netip.Addr{addr("10.244.1.1"), addr("fd00:244:1::1"), addr("10.244.1.5")},
		Ported: []program.Attachment{
			{Link: "cni0", Addr: addr("10.244.1.6"), Port: "veth6", PortIndex: 16, Hardware: six},
			{Link: "cni0", Addr: addr("fd00:244:1::6"), Port: "veth6", PortIndex: 16, Hardware: six},
			{Link: "cni0", Addr: addr("10.244.1.5"), Port: "veth5", PortIndex: 15, Hardware: five},
			{Link: "cni0", Addr: addr("10.244.1.7")}, {Link: "veth9", Addr: addr("10.244.1.9")},
		}}
}

func TestOnlyAPodsPortHasItsAddresses(t *testing.T) {
	const none, five, six = "00:00:00:00:00:00", "02:00:00:00:00:05", "02:00:00:00:00:06"
	table := RenderBridge(onBridges())
	elements := func(set string) (list []string) {
		s := table.Set(set)
		for _, e := range s.Entries {
			list = append(list, e.Key.Iface+" "+e.Key.Hardware.String()+" "+e.Key.Addr.String())
		}
		for _, e := range inet.Sorted(s.Elements) {
			list = append(list, " "+none+" "+e.Addr.String())
		}
		return list
	}
	for set, want := range map[string][]string{
		"port-source4": {"veth5 " + five + " 10.244.1.5", "veth6 " + six + " 10.244.1.6"},
		"port-source6": {"veth6 " + six + " fd00:244:1::6", "veth5 " + five + " fe80::ff:fe00:5", "veth6 " + six + " fe80::ff:fe00:6"},
		"pod-address4": {" " + none + " 10.244.1.1", " " + none + " 10.244.1.5", " " + none + " 10.244.1.6"},
		"pod-address6": {" " + none + " fd00:244:1::1", " " + none + " fd00:244:1::6", " " + none + " fe80::ff:fe00:5",
			" " + none + " fe80::ff:fe00:6"},
		"port-hardware": {"veth5 " + five + " invalid IP", "veth6 " + six + " invalid IP"},
		"pod-hardware":  {" " + five + " invalid IP", " " + six + " invalid IP"},
		"pod-ports":     {"veth5 " + none + " invalid IP", "veth6 " + none + " invalid IP"},
		"non-pod-ports": {"gw0-port " + none + " invalid IP"},
		"uplink-ports":  {"eth1 " + none + " invalid IP"},
	} {
		if diff := cmp.Diff(want, elements(set), cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", set, diff)
		}
	}
	if RenderBridge(program.Node{Ported: onBridges().Ported}) != nil {
		t.Error("there is a table without a bridge of pods")
	}
}

// The next process finds what is bound, and a node can be told that somebody owns
// nothing any more.
func TestTheTableOfPortsSaysWhatIsBound(t *testing.T) {
	n := onBridges()
	further := n.Ported[0] // by annotation: the interface has another
	further.Hardware, further.Extra = inet.Hardware{5: 1}, true
	n.Ported = append(n.Ported, further)
	table := RenderBridge(n)
	if !slices.ContainsFunc(table.Set("port-hardware").Entries, func(e nft.Entry) bool { return e.Key.Hardware == further.Hardware }) {
		t.Error("a further hardware address is not bound")
	}
	var want []program.Attachment
	for _, at := range onBridges().Ported[:3] {
		at.Link = ""
		want = append(want, at)
	}
	byAddr := cmpopts.SortSlices(func(a, b program.Attachment) bool { return a.Addr.Less(b.Addr) })
	if diff := cmp.Diff(want, PortsInForce(table), byAddr, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	gone := WithoutOwners(table, []netip.Addr{want[0].Addr, want[1].Addr})
	if diff := cmp.Diff(want[2:], PortsInForce(gone), cmpopts.EquateComparable(netip.Addr{})); diff != "" || gone.Set("pod-address4").Len() != 2 {
		t.Errorf("after they are gone (-want +got):\n%s%v", diff, gone.Set("pod-address4"))
	}
	if PortsInForce(nil) != nil {
		t.Error("no table has ports")
	}
}

// withoutTargets leaves out the rules that nft before 1.0.8 has no words for.
func withoutTargets(t *nft.Table) *nft.Table {
	less := *t
	less.Chains = nil
	for _, c := range t.Chains {
		chain := *c
		chain.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r nft.Rule) bool { return strings.Contains(r.String(), "taddr") })
		less.Chains = append(less.Chains, &chain)
	}
	return &less
}

func TestTheBridgesTableIsThatOfItsText(t *testing.T) {
	conn, ours := openIn(t)
	byUs, want := conn.Of(BridgeTable()), RenderBridge(onBridges())
	sameAsText(t, byUs, ours, withoutTargets(want))
	if err := byUs.Delete(); err != nil {
		t.Fatal(err)
	}
	if err := byUs.Commit(nft.Diff(nil, want)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(nftrun.Run(t, ours, "", "list", "ruleset"), "@th,64,128"); got != 6 {
		t.Errorf("%d rules look at the target of neighbour discovery, want 6", got)
	}
	if actual, err := byUs.Read(); err != nil || len(nft.Diff(actual, want)) > 0 {
		t.Errorf("after writing: %v, %v", nft.Diff(actual, want), err)
	} else if diff := cmp.Diff(PortsInForce(want), PortsInForce(actual), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("read back, other ports are bound (-want +got):\n%s", diff)
	}
	less := onBridges()
	less.Ported = less.Ported[1:]
	if ops := nft.Diff(want, RenderBridge(less)); len(ops) > 0 {
		if err := byUs.Commit(ops); err != nil {
			t.Error(err)
		}
	}
	nftrun.Run(t, ours, "", "flush", "chain", "bridge", TableName, chainFrames)
	if actual, err := byUs.Read(); err != nil || len(nft.Diff(actual, want)) == 0 {
		t.Errorf("a foreign flush is not seen: %v", err)
	}
	if err := byUs.Delete(); err != nil {
		t.Fatal(err)
	}
	if exists, err := byUs.Exists(); exists || err != nil {
		t.Errorf("after removing: exists %t, %v", exists, err)
	}
}

// Read by people, like the other rulesets. Rewrite with -update.
func TestGoldenTableOfTheBridge(t *testing.T) {
	Golden(t, "testdata/bridge/ports.nft", RenderBridge(onBridges()).String())
}

var update = flag.Bool("update", false, "write the golden texts anew")

// Golden wants a text to be that of a file, which -update writes anew.
func Golden(t *testing.T, file, got string) {
	t.Helper()
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

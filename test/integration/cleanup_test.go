// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/kernel/sysctl"
	"github.com/podwall/podwall/internal/lab"
)

// switches are the settings of a node that the agent changes for a bridge.
type switches struct {
	links.Bridged
	VLAN bool
}

func (w *world) switches(node string) (s switches) {
	w.t.Helper()
	err := w.bed.Node(node).NS.Do(func() (err error) {
		if s.Bridged, err = links.ReadBridge(links.IndexOf(lab.BridgeName)); err != nil {
			return err
		}
		s.VLAN, err = links.ReadVLAN(sysctl.Default)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// addForeignTable makes a table that is somebody else's and looks like ours.
func (w *world) addForeignTable(node string) {
	w.t.Helper()
	c := w.foreign(node)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "podwall2"})
	chain := c.AddChain(&nftables.Chain{Table: table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}}})
	c.AddTable(&nftables.Table{Family: nftables.TableFamilyARP, Name: "podwall"})
	if err := c.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) foreign(node string) *nftables.Conn {
	w.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(w.bed.Node(node).NS.FD()))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// inventory lists the tables with their chains and numbers of rules, and the
// links of a node.
func (w *world) inventory(node string) (list []string) {
	w.t.Helper()
	c := w.foreign(node)
	tables, err := c.ListTables()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, t := range tables {
		list = append(list, fmt.Sprintf("table %d %s", t.Family, t.Name))
	}
	chains, err := c.ListChains()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, k := range chains {
		rules, err := c.GetRules(k.Table, k)
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("chain %d %s %s with %d rules", k.Table.Family, k.Table.Name, k.Name, len(rules)))
	}
	err = w.bed.Node(node).NS.Do(func() error {
		all, err := netlink.LinkList()
		for _, l := range all {
			list = append(list, "link "+l.Attrs().Name)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

func TestCleanupRemovesWhatIsOursAndNothingElse(t *testing.T) {
	w := newSmallWorld(t, lab.Bridge)
	w.addForeignTable("node1")
	before, off := w.inventory("node1"), w.switches("node1")
	if off.IPv4 || off.IPv6 || off.VLAN {
		t.Fatalf("settings before the agent are %+v, want all off", off)
	}
	w.denyIngress()
	a := w.agent("node1").ready()
	w.becomes("ready", openWhenDenied)
	a.Stop()
	w.stays("the agent was stopped")
	if on := w.switches("node1"); !on.All() || !on.VLAN {
		t.Errorf("settings while policies are enforced are %+v, want all on", on)
	}

	w.agent("node1", "--cleanup-config").Exits(0)
	if diff := cmp.Diff(before, w.inventory("node1")); diff != "" {
		t.Errorf("what is there after the cleanup (-before +after):\n%s", diff)
	}
	if now := w.switches("node1"); now != off {
		t.Errorf("settings after the cleanup are %+v, want %+v", now, off)
	}
	w.becomes("cleaned up", everything)

	w.agent("node1", "--cleanup-config").Exits(0) // with nothing to do
	if diff := cmp.Diff(before, w.inventory("node1")); diff != "" {
		t.Errorf("what is there after a second cleanup (-before +after):\n%s", diff)
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
)

// What is shown is what the kernel has, and says what another program changed in it.
func TestTheRulesetThatIsShown(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		shows := func(wants ...string) {
			t.Helper()
			var b strings.Builder
			if err := d.Ruleset(&b); err != nil {
				t.Fatal(err)
			}
			for _, want := range wants {
				if !strings.Contains(b.String(), want) {
					t.Errorf("%q is not in\n%s", want, &b)
				}
			}
		}
		shows("# table inet podwall: none is loaded\n", "# table bridge podwall: none is loaded\n")
		healthy(t, d, isolated("10.244.2.5"))
		shows("# table inet podwall: the kernel has exactly this\ntable inet podwall {\n", "10.244.2.5",
			"hook postrouting priority -190")
		run(t, "nft", "flush", "table", "inet", "podwall") // its rules
		shows("# table inet podwall: the kernel differs; missing there:\n#   ", " rules to ", "10.244.2.5")
		run(t, "nft", "delete", "table", "inet", "podwall")
		shows("missing there:\n#   add table\n", "changes more\n")
		healthy(t, d, isolated("10.244.2.5"))
		if err := d.makeWay(); err != nil {
			t.Fatal(err)
		}
		shows("# table inet podwall: none is loaded\n")
		run(t, "nft", "add", "table", "inet", "podwall")
		shows("# table inet podwall: the kernel has one, which this agent did not load\n")
		run(t, "nft", "delete", "table", "inet", "podwall")
		healthy(t, d, &program.Program{})
		shows("# table inet podwall: the kernel has exactly this\n")
	})
}

// A bridge that carries pods has a second table.
func TestTheTableOfBridgesIsShown(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		addBridges(t)
		addPort(t, "br0", "port5", "10.244.1.5")
		d := open(t, Options{})
		apply(t, d, isolated())
		var b strings.Builder
		if err := d.Ruleset(&b); err != nil || !strings.Contains(b.String(),
			"# table bridge podwall: the kernel has exactly this\ntable bridge podwall {\n") ||
			!strings.Contains(b.String(), "port5") {
			t.Errorf("%v\n%s", err, &b)
		}
	})
}

// Sets that the kernel fills, and those of connections that were cut, are no difference.
func TestWhatTheKernelAddsIsNoDifference(t *testing.T) {
	for name, group := range map[string]uint16{"plain": 0, "recorded": 7} {
		t.Run(name, func(t *testing.T) {
			inOwnNamespace(t, func(t *testing.T) {
				d := open(t, Options{Options: decide.Options{DeniedGroup: group}})
				watch(t, d)
				apply(t, d, isolated(first, second))
				fill(t)
				drive(t, d, isolated(first), lines(first, webPod, second, elsewhere)...)
				if !refusedElement(t) {
					t.Error("nothing was cut")
				}
				if group > 0 { // as the rules do with denied packets
					nftRun(t, "add element inet podwall denied-ingress-pairs4 { 10.9.9.9 . 10.244.2.5 limit rate 10/second burst 20 packets }")
					nftRun(t, "add element inet podwall denied-egress-rest6 { fd00::9 limit rate 10/second burst 20 packets }")
					verify(t, d)
					if r := apply(t, d, isolated(first)); !r.Full || r.Drift > 0 || r.Changes > 0 {
						t.Errorf("the table is replaced: %s", brief(r))
					}
				}
				var b strings.Builder
				if err := d.Ruleset(&b); err != nil || !strings.HasPrefix(b.String(), "# table inet podwall: the kernel has exactly this\n") {
					t.Errorf("%v\n%s", err, &b)
				}
			})
		})
	}
}

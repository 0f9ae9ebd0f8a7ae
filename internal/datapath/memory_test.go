// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"testing"
)

// Two sets of the table hold state for the next process. Another program's elements in them must not affect
// a running process: they would close bridges without pods, or switch to filter chains permanently.
func TestForeignElementsOfTheMemoryAreRepaired(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		d := open(t, Options{})
		p := isolated("10.244.2.9")
		healthy(t, d, p)
		want := listing(t)
		for _, change := range []string{
			`add element inet podwall pod-bridges { "docker0" }`,
			`add element inet podwall saved-settings { "docker0" comment "nf_call_iptables=0 nf_call_ip6tables=0" }`,
			`add element inet podwall saved-settings { "forced:filter" }`,
		} {
			nftRun(t, change)
			verify(t, d)
			apply(t, d, p)
			if now := listing(t); now != want {
				t.Errorf("%s: the table is\n%s\nwant\n%s", change, now, want)
			}
		}
	})
}

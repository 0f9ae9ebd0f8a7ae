// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/testkit/nftrun"
)

func TestSurveyFindsADropOfEveryInvalidPacket(t *testing.T) {
	const forward = "table inet theirs {\nchain user {\n%user%\n}\nchain forward {\ntype filter hook forward priority 0\n%forward%\n}\n}\n"
	tests := []struct {
		name          string
		forward, user string
		want          bool
	}{
		{"the rule alone", "ct state invalid drop", "", true},
		{"one state of several", "ct state invalid,untracked counter drop", "", true},
		{"another state", "ct state untracked drop", "", false},
		{"behind an accept of established packets", "ct state established,related accept; ct state invalid drop", "", true},
		{"behind an accept for some addresses", "ip saddr 10.0.0.0/8 accept; ct state invalid drop", "", false},
		{"behind a drop for some addresses", "ip saddr 10.0.0.0/8 drop; ct state invalid drop", "", true},
		{"behind an accept of all", "accept; ct state invalid drop", "", false},
		{"with another condition", "tcp dport 80 ct state invalid drop", "", false},
		{"in a chain that is jumped to", "jump user", "ct state invalid drop", true},
		{"behind a chain that returns", "jump user; ct state invalid drop", "return", true},
		{"behind a chain that returns some", "jump user; ct state invalid drop", "tcp dport 80 return; drop", true},
		{"behind a chain that accepts some", "jump user; ct state invalid drop", "tcp dport 80 accept", false},
		{"behind a jump with a condition", "tcp dport 80 jump user; ct state invalid drop", "accept", false},
		{"behind a jump for new packets", "ct state new jump user; ct state invalid drop", "accept", true},
		{"behind a goto", "goto user; ct state invalid drop", "counter", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, ns := openIn(t)
			nftrun.Run(t, ns, strings.NewReplacer("%user%", tt.user, "%forward%", tt.forward).Replace(forward), "-f", "-")
			s, err := c.Survey(-190, noName)
			if err != nil {
				t.Fatal(err)
			}
			if s.DropsInvalid != tt.want {
				t.Errorf("DropsInvalid = %t, want %t", s.DropsInvalid, tt.want)
			}
			nftrun.Run(t, ns, "table inet theirs { flags dormant; }", "-f", "-")
			if s, err := c.Survey(-190, noName); err != nil || s.DropsInvalid {
				t.Errorf("in a dormant table: DropsInvalid = %t, %v", s.DropsInvalid, err)
			}
		})
	}
}

// noName recognises no chain.
func noName(string) bool { return false }

func TestSurveyCountsChainsThatAreKnown(t *testing.T) {
	c, ns := openIn(t)
	nftrun.Run(t, ns, "table ip filter {\nchain A-1 { }\nchain A-2 { type filter hook forward priority 0; }\nchain B { }\n}\n"+
		"table inet podwall {\nchain A-3 { }\n}\n", "-f", "-")
	s, err := c.Survey(-190, func(name string) bool { return strings.HasPrefix(name, "A-") })
	if err != nil || len(s.Known) != 2 {
		t.Errorf("known = %v, %v; want the two outside of our table", s.Known, err)
	}
}

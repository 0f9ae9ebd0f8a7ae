// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// Invariant 10: every rule that is always there exists for IPv4 and for IPv6,
// or the reason is written here.
func TestInvariant10EveryBaseRuleIsThereForBothFamilies(t *testing.T) {
	reasons := []string{
		"icmpv6 type",            // neighbour discovery; IPv4 has ARP, which passes no IP hook
		"link-local traffic of",  // each family has its own link-local addresses
		"link-local error of",    // so it has for that
		"multicast or broadcast", // and its own multicast addresses
		"multicast-to-pods",      // as here
		"type broadcast",         // IPv6 has none
	}
	for name, node := range map[string]program.Node{"closed": {}, "open": {OpenUnknown: true}, "open without a guard": {OpenUnknown: true, NoGuard: true},
		"filter": {FilterHook: true}, "bridge": {Bridges: true}, "bridge and filter": {FilterHook: true, Bridges: true}} {
		t.Run(name, func(t *testing.T) {
			table := ruleset.Render(&program.Program{}, node)
			seen := 0
			for _, c := range table.Chains {
				var rules []string
				for _, r := range c.Rules {
					rules = append(rules, r.String())
				}
				for _, r := range rules {
					if slices.ContainsFunc(reasons, func(s string) bool { return strings.Contains(r, s) }) {
						continue
					}
					if other := otherFamily(r); other != r {
						seen++
						if !slices.Contains(rules, other) {
							t.Errorf("chain %s has %q and not %q", c.Name, r, other)
						}
					}
				}
			}
			if seen == 0 {
				t.Error("no rule names a family: the test sees nothing")
			}
			for _, s := range table.Sets {
				if other := otherFamily("@" + s.Name); other != "@"+s.Name && table.Set(strings.TrimPrefix(other, "@")) == nil {
					t.Errorf("there is %s and not %s", s.Name, other)
				}
			}
		})
	}
}

// otherFamily writes a rule for the other family.
func otherFamily(rule string) string {
	pairs := [][2]string{{"ip ", "ip6 "}, {"l4proto icmp", "l4proto ipv6-icmp"}, {"nfproto ipv4", "nfproto ipv6"}}
	for _, p := range pairs {
		if strings.Contains(rule, p[1]) {
			rule = strings.ReplaceAll(rule, p[1], p[0])
		} else {
			rule = regexp.MustCompile(`\b`+regexp.QuoteMeta(p[0])).ReplaceAllString(rule, p[1])
		}
	}
	return regexp.MustCompile(`@[a-z-]+[46]\b`).ReplaceAllStringFunc(rule, func(s string) string {
		return s[:len(s)-1] + map[byte]string{'4': "6", '6': "4"}[s[len(s)-1]]
	})
}

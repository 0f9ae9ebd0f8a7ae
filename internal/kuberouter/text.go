// SPDX-License-Identifier: Apache-2.0

package kuberouter

import (
	"fmt"
	"strings"
)

// Text lists the plan for people, one object per line, then the refusals and the recipe for the
// objects that are not removed.
func (p Plan) Text() string {
	var b strings.Builder
	for _, j := range p.Jumps {
		fmt.Fprintf(&b, "rule   %s %s handle %d, which leads to %s\n", j.Table, j.Chain, j.Handle, j.Target)
	}
	for _, c := range p.Chains {
		fmt.Fprintf(&b, "chain  %s %s\n", c.Table, c.Name)
	}
	for _, t := range p.Tables {
		fmt.Fprintf(&b, "table  %s\n", t)
	}
	for _, s := range p.Sets {
		fmt.Fprintf(&b, "ipset  %s\n", s)
	}
	if len(p.Sets) > 0 && len(p.Legacy) > 0 {
		b.WriteString("the ipsets stay until the chains of iptables-legacy, which use them, are gone\n")
	}
	if p.Nothing() {
		b.WriteString("nothing of kube-router's firewall is here\n")
	}
	for _, l := range p.Left {
		fmt.Fprintf(&b, "left alone, the name is of no form that kube-router gives: %s\n", l)
	}
	for _, t := range p.Legacy {
		fmt.Fprintf(&b, "not removed: %d chains of kube-router in table %s of iptables-legacy. On the node, as "+
			"root:\n%s", len(t.Chains), t, Recipe(t))
	}
	for _, r := range p.Refusals {
		fmt.Fprintf(&b, "refused: %s\n  what to do: %s\n", r.Why, r.Cure)
	}
	return b.String()
}

// Recipe returns shell commands that remove the firewall's chains from a table of iptables-legacy.
func Recipe(t LegacyTable) string {
	return t.Recipe(`KUBE-ROUTER-(INPUT|FORWARD|OUTPUT)|KUBE-(POD-FW|NWPLCY)-[A-Z2-7]+`)
}

// SPDX-License-Identifier: Apache-2.0

package program

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/podwall/podwall/internal/inet"
)

// String returns the whole program as canonical text: equal text means equal programs. It is for
// tests and debugging; operators read the ruleset instead.
func (p *Program) String() string {
	var b strings.Builder
	for _, pod := range p.Pods {
		fmt.Fprintf(&b, "pod %s %s%s ingress %s egress %s", pod.Addr, pod.Name, idText(pod.ID),
			cmp.Or(pod.Ingress, "open"), cmp.Or(pod.Egress, "open"))
		if pod.AuditIngress != "" || pod.AuditEgress != "" {
			fmt.Fprintf(&b, " audit ingress %s egress %s", cmp.Or(pod.AuditIngress, "none"),
				cmp.Or(pod.AuditEgress, "none"))
		}
		b.WriteString("\n")
	}
	for _, c := range p.Chains {
		fmt.Fprintf(&b, "chain %s\n", c.Name)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "  %s # %s\n", r, r.Comment)
		}
	}
	for _, s := range p.Sets {
		fmt.Fprintf(&b, "set %s: %s # %s\n", s.Name, s.Kind, s.Comment)
		for _, e := range inet.Sorted(s.Elements) {
			fmt.Fprintf(&b, "  %s\n", s.Kind.Format(e))
		}
		for _, r := range s.Ranges {
			fmt.Fprintf(&b, "  %s\n", s.Kind.FormatRange(r))
		}
	}
	return b.String()
}

// String returns the conditions of the rule; "any" if there are none.
func (r Rule) String() string {
	var parts []string
	if r.Protocol != inet.AnyProtocol {
		parts = append(parts, r.Protocol.String())
	}
	if !r.Ports.Any() {
		parts = append(parts, r.Ports.String())
	}
	if r.PortSet != "" {
		parts = append(parts, "port @"+r.PortSet)
	}
	if !r.Block.Any() {
		parts = append(parts, "peer "+r.Block.String())
	}
	if r.PeerSet != "" {
		parts = append(parts, "peer @"+r.PeerSet)
	}
	if r.DestSet != "" {
		parts = append(parts, "destination @"+r.DestSet)
	}
	if r.Place != Anywhere {
		parts = append(parts, r.Place.String())
	}
	if len(parts) == 0 {
		return "any"
	}
	return strings.Join(parts, " ")
}

// String returns the prefix and its except ranges.
func (b Block) String() string {
	s := b.CIDR.String()
	for _, e := range b.Except {
		s += " except " + e.String()
	}
	return s
}

func idText(id string) string {
	if id == "" {
		return ""
	}
	return " id " + id
}

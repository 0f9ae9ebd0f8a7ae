// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
)

// String returns the explanation for people: the verdict, then each side, in lines that
// are indented by two.
func (e *Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s to %s %s: %s\n", e.Flow.Src, e.Flow.Dst, flowPort(e.Flow), verdict(e.Allowed))
	e.Egress.write(&b, "egress of "+e.Flow.Src.String())
	e.Ingress.write(&b, "ingress of "+e.Flow.Dst.String())
	return b.String()
}

func verdict(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

func (s Side) write(b *strings.Builder, what string) {
	fmt.Fprintf(b, "  %s: %s", what, verdict(s.Allowed()))
	if s.Cause != NoRule && s.Cause != AllowedByRule {
		fmt.Fprintf(b, ", %s", s.Cause)
	}
	b.WriteString("\n")
	if len(s.Isolating) > 0 {
		fmt.Fprintf(b, "    isolated by %s\n", names(s.Isolating))
	}
	if len(s.Claimants) > 0 {
		fmt.Fprintf(b, "    claimed by %s\n", names(s.Claimants))
	}
	for _, r := range s.Rules {
		fmt.Fprintf(b, "    allowed by %s %s\n", r.Policy, r.Path)
	}
	if s.Nearest != nil {
		fmt.Fprintf(b, "    nearest rule: %s %s\n", s.Nearest.Policy, s.Nearest.Path)
		for _, why := range s.Nearest.Why {
			fmt.Fprintf(b, "      %s\n", why)
		}
	}
	for _, d := range s.Findings {
		fmt.Fprintf(b, "    %s\n", d)
	}
	if s.Change != "" {
		fmt.Fprintf(b, "    to allow it: %s\n", s.Change)
	}
	for _, o := range s.Others {
		fmt.Fprintf(b, "    not selected by %s: %s\n", o.Policy, o.Why)
	}
}

func names(keys []cluster.Key) string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.String()
	}
	return strings.Join(list, ", ")
}

// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
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

// String returns the isolation for people, in lines that are indented by two.
func (i *Isolation) String() string {
	var b strings.Builder
	at := make([]string, len(i.Addresses))
	for n, a := range i.Addresses {
		at[n] = a.String()
	}
	fmt.Fprintf(&b, "%s on %s, %s\n", i.Pod, cmp.Or(i.Node, "no node yet"), cmp.Or(strings.Join(at, ", "), "no address"))
	if !i.Network {
		b.WriteString("  it has no network of its own, or none yet: no policy applies to it\n")
	}
	i.Ingress.write(&b, "ingress", "from")
	i.Egress.write(&b, "egress", "to")
	return b.String()
}

func (s Selected) write(b *strings.Builder, direction, toward string) {
	if len(s.Policies) == 0 {
		fmt.Fprintf(b, "  %s: not isolated, everything is allowed\n", direction)
	} else {
		fmt.Fprintf(b, "  %s: isolated, only this is allowed:\n", direction)
	}
	for _, p := range s.Policies {
		if len(p.Rules) == 0 {
			fmt.Fprintf(b, "    %s: nothing, it has no rules\n", p.Policy)
		}
		for _, r := range p.Rules {
			fmt.Fprintf(b, "    %s %s: %s %s, %s (%s now)\n", p.Policy, r.Path, toward, words(r.Peers), words(r.Ports),
				count(r.Pods, "pod"))
		}
	}
	for _, o := range s.Others {
		fmt.Fprintf(b, "    not selected by %s: %s\n", o.Policy, o.Why)
	}
}

// words joins alternatives.
func words(list []string) string {
	if len(list) == 0 {
		return "nothing that was understood"
	}
	return strings.Join(list, " or ")
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

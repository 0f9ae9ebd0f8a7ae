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
	writeLine(&b, "%s to %s %s: %s", e.Flow.Src, e.Flow.Dst, flowPort(e.Flow), verdict(e.Allowed))
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
	cause := ""
	if s.Cause != NoRule && s.Cause != AllowedByRule {
		cause = ", " + string(s.Cause)
	}
	writeLine(b, "  %s: %s%s", what, verdict(s.Allowed()), cause)
	if len(s.Isolating) > 0 {
		writeLine(b, "    isolated by %s", names(s.Isolating))
	}
	if len(s.Claimants) > 0 {
		writeLine(b, "    claimed by %s", names(s.Claimants))
	}
	for _, r := range s.Rules {
		writeLine(b, "    allowed by %s %s", r.Policy, r.Path)
	}
	if s.Nearest != nil {
		writeLine(b, "    nearest rule: %s %s", s.Nearest.Policy, s.Nearest.Path)
		for _, why := range s.Nearest.Why {
			writeLine(b, "      %s", why)
		}
	}
	for _, d := range s.Findings {
		writeLine(b, "    %s", d)
	}
	if s.Change != "" {
		writeLine(b, "    to allow it: %s", s.Change)
	}
	for _, o := range s.Others {
		writeLine(b, "    %s", o)
	}
}

// writeLine writes one line, whatever the names and values in it are.
func writeLine(b *strings.Builder, format string, args ...any) {
	b.WriteString(line(format, args...) + "\n")
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
	writeLine(&b, "%s on %s, %s", i.Pod, cmp.Or(i.Node, "no node yet"), cmp.Or(strings.Join(at, ", "), "no address"))
	if !i.Network {
		b.WriteString("  it has no network of its own, or none yet: no policy applies to it\n")
	}
	i.Ingress.write(&b, "ingress", "from")
	i.Egress.write(&b, "egress", "to")
	return b.String()
}

func (s Selected) write(b *strings.Builder, direction, toward string) {
	if len(s.Policies) == 0 {
		writeLine(b, "  %s: not isolated, everything is allowed", direction)
	} else {
		writeLine(b, "  %s: isolated, only this is allowed:", direction)
	}
	for _, p := range s.Policies {
		if len(p.Rules) == 0 {
			writeLine(b, "    %s: nothing, it has no rules", p.Policy)
		}
		for _, r := range p.Rules {
			writeLine(b, "    %s %s: %s %s, %s (%s now)", p.Policy, r.Path, toward, words(r.Peers), words(r.Ports),
				count(r.Pods, "pod"))
		}
	}
	for _, o := range s.Others {
		writeLine(b, "    %s", o)
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

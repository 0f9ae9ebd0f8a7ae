// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/podwall/podwall/internal/logging"
)

// WriteText writes the status for people: what matters first, one fact a line.
func (s Status) WriteText(w io.Writer) error {
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(tab, "%s\t%s\n", logging.Plain(name), logging.Plain(fmt.Sprintf(format, args...)))
	}
	row("node", "%s", s.Node)
	row("ready", "%s", yesNo(s.Ready))
	for _, reason := range s.NotReady {
		row("", "- %s", reason)
	}
	row("revision", "%s", s.revisions())
	row("source", "%s", strings.TrimSpace(s.Source+" "+s.SourceID))
	if s.PolicyVersion != "" {
		row("policies of", "resourceVersion %s", s.PolicyVersion)
	}
	for _, f := range s.Feeds {
		row("- "+f.Kind, "%s", f)
	}
	row("datapath", "%s", cmp.Or(s.Datapath.Datapath, "not known yet"))
	row("guard", "%s", s.guard())
	row("families", "%s", cmp.Or(strings.Join(s.Families, ", "), "not known yet"))
	row("pods here", "%d, %d of them isolated", s.Pods, s.IsolatedPods)
	if s.AuditedPods > 0 {
		row("audit", "%d of them open only because of audit mode, which would have denied %d packets", s.AuditedPods,
			s.WouldDeny)
		row("", "%s", named(s.AuditedNames, s.AuditedPods))
	}
	if len(s.Held) > 0 {
		row("held back", "%s", heldText(s.Held))
	}
	if len(s.WithoutPod) > 0 {
		row("no pod at", "%s (closed)", strings.Join(s.WithoutPod, ", "))
	}
	row("policies", "%d", s.Policies)
	row("kernel", "%d chains, %d rules, %d sets, %d elements", s.Chains, s.Rules, s.Sets, s.Elements)
	row("last apply", "%s", s.LastApply)
	if s.Programming > 0 {
		row("last change", "in force after %s",
			time.Duration(s.Programming*float64(time.Second)).Round(time.Microsecond))
	}
	row("repairs", "%d", s.DriftRepairs)
	row("drops", "%d packets%s", s.Drops, s.DropsByReason)
	row("cut", "%d connections, %d refused a revival", s.Cut, s.Refused)
	row("tracked", "%s", s.Connections)
	s.Services.write(row)
	row("version", "%s, started %s", s.Version, s.Started.Format(time.RFC3339))
	_ = tab.Flush() // a strings.Builder takes everything
	s.writeFindings(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Status) writeFindings(b *strings.Builder) {
	if len(s.Problems) > 0 {
		b.WriteString("\nproblems of the node\n")
	}
	for _, p := range s.Problems {
		fmt.Fprintf(b, "  %s\n", logging.Plain(p.String()))
	}
	if len(s.Diagnostics) > 0 {
		b.WriteString("\nfindings about objects\n")
	}
	for _, d := range s.Diagnostics {
		fmt.Fprintf(b, "  %s\n", logging.Plain(d.String()))
	}
	if s.Services == nil {
		return
	}
	if len(s.Services.Diagnostics) > 0 {
		b.WriteString("\nfindings about Services\n")
	}
	for _, d := range s.Services.Diagnostics {
		fmt.Fprintf(b, "  %s\n", logging.Plain(d.String()))
	}
}

// String returns one line for people.
func (p Problem) String() string {
	line := p.Subject + ": " + p.Text
	if p.Cure != "" {
		line += "; " + p.Cure
	}
	if p.Blocking {
		line += " (not enforced meanwhile)"
	}
	return line
}

// String returns one line for people.
func (a *Apply) String() string {
	if a == nil {
		return "never"
	}
	took := time.Duration(a.Seconds * float64(time.Second)).Round(time.Microsecond)
	line := fmt.Sprintf("%s, %s, took %s", a.Time.Format(time.RFC3339), a.Kind, took)
	if a.Error != "" {
		line += ", failed: " + a.Error
	}
	return line
}

// String returns one line for people.
func (c *Connections) String() string {
	switch {
	case c == nil:
		return "not known"
	case c.Limit == 0:
		return fmt.Sprintf("%d connections", c.Entries)
	}
	return fmt.Sprintf("%d connections, of %d that the kernel can", c.Entries, c.Limit)
}

func (s Status) revisions() string {
	if s.Revision == s.SeenRevision {
		return fmt.Sprintf("%d", s.Revision)
	}
	return fmt.Sprintf("%d enforced, %d seen", s.Revision, s.SeenRevision)
}

func (s Status) guard() string {
	line := cmp.Or(s.Guard, "not known yet")
	if s.GuardReason != "" {
		line += ": " + s.GuardReason
	}
	return line
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// named lists names, and how many of a count have none here.
func named(names []string, of int) string {
	text := strings.Join(names, ", ")
	if more := of - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

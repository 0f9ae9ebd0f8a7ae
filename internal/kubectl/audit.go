// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// auditSchema names the form of the JSON of audit.
const auditSchema = "podwall.audit/v1"

type auditCommand struct {
	source *source
	output output
	since  time.Duration
	all    bool
	// agents are those of the cluster; set in tests.
	agents agents
}

func newAudit(s Streams) *cobra.Command { return auditOf(s, nil) }

func auditOf(s Streams, a agents) *cobra.Command {
	c := &auditCommand{source: newSource(s), agents: a}
	cmd := &cobra.Command{
		Use:   "audit [POLICY]",
		Short: "List policies in audit mode, and say whether they can be enforced",
		Long: `audit lists the policies in audit mode (annotation podwall.io/mode: audit, of the
policy or of its namespace) with the pods that are open only because of it. On a
cluster it asks the agents of all nodes what these policies would have denied in
the last time, and says whether enforcing them denies traffic that was seen. Agents
must run with --denied-flows-group; see docs/audit.md. Agents are those in
--agents-namespace. Of files (-f) it says nothing about traffic.

POLICY is [NAMESPACE/]NAME. Without it all policies of the namespace are listed,
with -A those of all namespaces.

The form of -o json is ` + auditSchema + `.

Exit status: 0 enforcing denies nothing that was seen, or there is none in audit
mode; 1 it would; 3 it is not known: a node does not answer, records nothing or not
for so long, or left packets out (stderr says which); 2 no answer: wrong command
line, no such policy, no connection.`,
		Example: `  kubectl podwall audit -n shop
  kubectl podwall audit -A --since 24h
  kubectl podwall audit shop/web --since 168h && echo "can be enforced"`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.source.bind(cmd)
	c.source.bindAgents(cmd)
	c.output.bind(cmd)
	cmd.Flags().BoolVarP(&c.all, "all-namespaces", "A", false, "policies of all namespaces")
	cmd.Flags().DurationVar(&c.since, "since", time.Hour, "what would have been denied in the last `TIME`, as in 24h")
	return cmd
}

// auditReport is the answer of audit.
type auditReport struct {
	Schema   string           `json:"schema"`
	Policies []auditedPolicy  `json:"policies"`
	Nodes    []denied.Summary `json:"nodes"`
	// Unknown says why it is not known what would be denied; empty if it is.
	Unknown []string `json:"unknown"`
}

// auditedPolicy is one policy in audit mode.
type auditedPolicy struct {
	Policy cluster.Key `json:"policy"`
	// ByNamespace is true if the namespace has the annotation.
	ByNamespace bool `json:"byNamespace,omitempty"`
	// Ingress and Egress are the pods that are open in the direction only because of audit mode.
	Ingress []cluster.Key `json:"ingress"`
	Egress  []cluster.Key `json:"egress"`
	// Flows are those that it would have denied, alone or together with others in audit mode.
	Flows []denied.Record `json:"flows"`
}

func (c *auditCommand) run(ctx context.Context, args []string) error {
	if err := c.output.check(); err != nil {
		return err
	}
	if c.since <= 0 {
		return fmt.Errorf("--since %s: want a time above 0", c.since)
	}
	sc, err := c.source.open(ctx)
	if err != nil {
		return err
	}
	r := auditReport{Schema: auditSchema, Policies: []auditedPolicy{}, Nodes: []denied.Summary{}, Unknown: []string{}}
	if r.Policies, err = c.policies(sc, args); err != nil {
		return err
	}
	if len(r.Policies) > 0 {
		if err := c.flows(ctx, &r); err != nil {
			return err
		}
	}
	if err := c.output.print(c.source.streams, r.text(c.since), r); err != nil {
		return err
	}
	switch {
	case slices.ContainsFunc(r.Policies, func(p auditedPolicy) bool { return len(p.Flows) > 0 }):
		return exit{statusNo}
	case len(r.Unknown) > 0:
		return exit{statusNotWritten}
	}
	return sc.status(false)
}

// policies returns those in audit mode that are asked for.
func (c *auditCommand) policies(sc *scene, args []string) (list []auditedPolicy, err error) {
	asked := cluster.Key{Namespace: sc.namespace}
	if len(args) > 0 {
		asked.Name = args[0]
		if ns, name, ok := strings.Cut(args[0], "/"); ok {
			asked = cluster.Key{Namespace: ns, Name: name}
		}
	}
	list = []auditedPolicy{}
	for _, p := range sc.snap.Policies {
		switch {
		case asked.Name != "" && p.Key != asked, asked.Name == "" && !c.all && p.Key.Namespace != asked.Namespace:
		case p.Audit:
			list = append(list, auditedOf(sc.snap, p))
		case asked.Name != "":
			return nil, fmt.Errorf("policy %s is enforced: it is not in audit mode, by the annotation %s: %s", p.Key,
				cluster.ModeAnnotation, cluster.ModeAudit)
		}
	}
	if asked.Name != "" && len(list) == 0 {
		return nil, fmt.Errorf("there is no policy %s", asked)
	}
	slices.SortFunc(list, func(a, b auditedPolicy) int { return a.Policy.Compare(b.Policy) })
	return list, nil
}

// auditedOf finds the pods that only audit mode leaves open.
func auditedOf(snap *cluster.Snapshot, p *cluster.Policy) auditedPolicy {
	a := auditedPolicy{Policy: p.Key, ByNamespace: p.ByNamespace, Ingress: []cluster.Key{},
		Egress: []cluster.Key{}, Flows: []denied.Record{}}
	for _, pod := range snap.Pods {
		if !pod.Networked() || pod.Key.Namespace != p.Key.Namespace || !p.Subject.Matches(pod.Labels) {
			continue
		}
		isolated := func(of func(*cluster.Policy) bool) bool {
			return slices.ContainsFunc(snap.Policies, func(o *cluster.Policy) bool {
				return !o.Audit && of(o) && o.Key.Namespace == pod.Key.Namespace && o.Subject.Matches(pod.Labels)
			})
		}
		if p.IsolatesIngress && !isolated(func(o *cluster.Policy) bool { return o.IsolatesIngress }) {
			a.Ingress = append(a.Ingress, pod.Key)
		}
		if p.IsolatesEgress && !isolated(func(o *cluster.Policy) bool { return o.IsolatesEgress }) {
			a.Egress = append(a.Egress, pod.Key)
		}
	}
	return a
}

// flows asks the agents, and notes what they do not know.
func (c *auditCommand) flows(ctx context.Context, r *auditReport) error {
	if c.source.files() {
		r.Unknown = append(r.Unknown, "files say nothing about traffic")
		return nil
	}
	f := &flowsCommand{source: c.source, since: c.since, agents: c.agents,
		filter: flowFilter{all: true, verdict: string(denied.WouldDeny)}}
	asked, err := f.find(ctx)
	if err != nil {
		return err
	}
	begin := time.Now().Add(-c.since)
	for i, a := range f.ask(ctx, asked) {
		if why := whyUnknown(a, begin); why != "" {
			r.Unknown = append(r.Unknown, "node "+asked[i].Node+": "+why)
		}
		if a.err == nil {
			r.Nodes = append(r.Nodes, a.summary)
		}
		for j := range r.Policies {
			p := &r.Policies[j]
			for _, flow := range a.flows {
				if slices.Contains(flow.Policies, p.Policy) {
					p.Flows = append(p.Flows, flow)
				}
			}
		}
	}
	for _, p := range r.Policies {
		slices.SortStableFunc(p.Flows, func(a, b denied.Record) int { return a.Last.Compare(b.Last) })
	}
	return nil
}

// whyUnknown says why an agent does not know all that would have been denied since a time; empty if it
// does.
func whyUnknown(a nodeAnswer, begin time.Time) string {
	s := a.summary
	switch {
	case a.err != nil:
		return a.err.Error()
	case !s.Recording:
		return "it records nothing: " + s.Why
	case a.unread > 0:
		return a.more()
	case a.reach(begin) != "":
		return a.reach(begin)
	case a.suppressed(begin):
		return a.leftOut()
	}
	return ""
}

// shownFlows is how many flows of a policy the text has.
const shownFlows = 10

// text returns the report for people.
func (r auditReport) text(since time.Duration) string {
	if len(r.Policies) == 0 {
		return "no policy is in audit mode\n"
	}
	var b strings.Builder
	for _, p := range r.Policies {
		by := ""
		if p.ByNamespace {
			by = ", as its namespace"
		}
		fmt.Fprintf(&b, "%s is in audit mode%s\n", p.Policy, by)
		podsText(&b, "ingress", p.Ingress)
		podsText(&b, "egress", p.Egress)
		for i := range p.Flows[:min(len(p.Flows), shownFlows)] {
			fmt.Fprintf(&b, "  would have denied %s to %s %s\n", p.Flows[i].Source, p.Flows[i].Destination,
				p.Flows[i].Service())
		}
		switch more := len(p.Flows) - shownFlows; {
		case more > 0:
			fmt.Fprintf(&b, "  and %d flows more\n", more)
			fallthrough
		case len(p.Flows) > 0:
			b.WriteString("  enforced, it denies traffic that was seen\n")
		case len(r.Unknown) == 0:
			fmt.Fprintf(&b, "  enforced, it denies nothing that was seen in the last %s\n", since)
		default:
			b.WriteString("  it is not known what it would deny\n")
		}
	}
	for _, why := range r.Unknown {
		fmt.Fprintf(&b, "not known: %s\n", why)
	}
	return b.String()
}

func podsText(b *strings.Builder, direction string, pods []cluster.Key) {
	const shown = 5
	if len(pods) == 0 {
		return
	}
	var names []string
	for _, k := range pods[:min(len(pods), shown)] {
		names = append(names, k.String())
	}
	if more := len(pods) - shown; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	of := "1 pod"
	if len(pods) > 1 {
		of = fmt.Sprintf("%d pods", len(pods))
	}
	fmt.Fprintf(b, "  %s of %s is open only because of that: %s\n", direction, of, strings.Join(names, ", "))
}

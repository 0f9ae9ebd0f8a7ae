// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/logging"
)

// statusSchema names the form of the JSON of status.
const statusSchema = "podwall.nodes/v1"

// shownNodes is up to how many nodes the text lists those of which there is nothing to say.
const shownNodes = 50

// askAgain is the pause before nodes are asked again that do not enforce yet.
const askAgain = time.Second

type statusCommand struct {
	source *source
	output output
	node   string
	// agents and facts are those of the cluster; set in tests.
	agents agents
	facts  clusterFacts
	pause  time.Duration
}

func newStatus(s Streams) *cobra.Command {
	return (&statusCommand{source: newSource(s), pause: askAgain}).command()
}

func (c *statusCommand) command() *cobra.Command {
	c.source.live = true
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show which nodes enforce all policies",
		Long: `status asks podwall-agent on each node up to which resourceVersion it enforces the
network policies, compares that with the policies that there are, and shows the
problems of nodes. Nodes without an agent are named.

It needs the right to create pods/exec and to list pods in the namespace of the
agents (--agents-namespace), and to list nodes and network policies. A node has a
minute to answer, or --request-timeout. A node that is not up to date is asked
again once.

The form of -o json is ` + statusSchema + `.

Exit status: 0 every node enforces all policies; 1 one does not, or has no agent; 3
it is not known: a node does not answer, or a right is missing (stderr says which);
2 no answer: wrong command line, no agent, no connection.`,
		Example: `  kubectl podwall status
  kubectl podwall status --node node1 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd.Context()) },
	}
	c.source.bindCluster(cmd)
	c.source.bindAgents(cmd)
	c.output.bind(cmd)
	cmd.Flags().StringVar(&c.node, "node", "", "ask the agent of the node `NAME` only")
	return cmd
}

// statusReport is the answer of status.
type statusReport struct {
	Schema string `json:"schema"`
	// Policies is how many there are, and Newest the newest resourceVersion of one; 0 if it is not known.
	Policies int            `json:"policies"`
	Newest   uint64         `json:"newest,omitempty"`
	Nodes    []enforcedNode `json:"nodes"`
	// WithoutAgent are nodes on which nothing is enforced, as far as is known.
	WithoutAgent []string `json:"withoutAgent"`
	// Unknown says what could not be found out, beside the errors of nodes.
	Unknown []string `json:"unknown"`
}

func (c *statusCommand) run(ctx context.Context) error {
	if err := c.output.check(); err != nil {
		return err
	}
	r, err := c.ask(ctx)
	if err != nil {
		return err
	}
	for _, why := range r.Unknown {
		c.source.say("error: " + why)
	}
	if err := c.output.print(c.source.streams, r.String(), r); err != nil {
		return err
	}
	return r.status()
}

// ask asks the API server and the agents.
func (c *statusCommand) ask(ctx context.Context) (r statusReport, err error) {
	patience, err := c.source.answerTime()
	if err != nil {
		return r, err
	}
	if c.facts == nil {
		if c.facts, err = c.source.facts(); err != nil {
			return r, err
		}
	}
	r = statusReport{Schema: statusSchema, Nodes: []enforcedNode{}, WithoutAgent: []string{}, Unknown: []string{}}
	if r.Newest, r.Policies, err = c.facts.newest(ctx); err != nil {
		r.Unknown = append(r.Unknown, err.Error())
	}
	var list []agentPod
	if c.agents, list, err = c.source.findAgents(ctx, c.agents, c.node); err != nil {
		return r, err
	}
	r.Nodes = askEnforced(ctx, c.agents, list, patience)
	c.again(ctx, &r, list, patience)
	if c.node == "" {
		nodes, err := c.facts.nodes(ctx)
		if err != nil {
			r.Unknown = append(r.Unknown, err.Error())
		}
		r.WithoutAgent = append(r.WithoutAgent, withoutAgent(nodes, list)...)
	}
	return r, ctx.Err()
}

// again asks nodes once more that were behind: a policy may have changed a moment ago.
func (c *statusCommand) again(ctx context.Context, r *statusReport, list []agentPod, patience time.Duration) {
	var behind []agentPod
	for i, n := range r.Nodes {
		if n.Error == "" && !n.reaches(r.Newest) {
			behind = append(behind, list[i])
		}
	}
	if len(behind) == 0 {
		return
	}
	sleep(ctx, c.pause)
	now := askEnforced(ctx, c.agents, behind, patience)
	for i, a := range list {
		if j := slices.Index(behind, a); j >= 0 {
			r.Nodes[i] = now[j]
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// status is the error that ends the command.
func (r statusReport) status() error {
	unknown := len(r.Unknown) > 0
	for _, n := range r.Nodes {
		if n.Error == "" && n.lacks(r.Newest) != "" {
			return exit{statusNo}
		}
		unknown = unknown || n.Error != ""
	}
	switch {
	case len(r.WithoutAgent) > 0:
		return exit{statusNo}
	case unknown:
		return exit{statusNotWritten}
	}
	return nil
}

// String returns the report for people: a line for each node, unless there are many, then what is to be said.
func (r statusReport) String() string {
	var b strings.Builder
	good := 0
	for _, n := range r.Nodes {
		if n.lacks(r.Newest) == "" {
			good++
		}
	}
	all := len(r.Nodes) + len(r.WithoutAgent)
	switch {
	case r.Newest == 0 && r.Policies == 0 && len(r.Unknown) > 0:
		fmt.Fprintf(&b, "%d of %d nodes are ready; it is not known which policies there are\n", good, all)
	default:
		fmt.Fprintf(&b, "%d of %d nodes enforce all policies (%d, the newest of resourceVersion %d)\n", good, all,
			r.Policies, r.Newest)
	}
	r.table(&b)
	for _, n := range r.Nodes {
		if why := n.lacks(r.Newest); why != "" {
			fmt.Fprintf(&b, "%s: %s\n", n.Node, why)
		}
		for _, p := range n.Problems {
			fmt.Fprintf(&b, "%s: problem: %s\n", n.Node, p)
		}
	}
	for _, name := range r.WithoutAgent {
		fmt.Fprintf(&b, "%s: no agent\n", name)
	}
	return b.String()
}

// table writes the nodes; of many, those of which there is something to say.
func (r statusReport) table(b *strings.Builder) {
	tab := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "  NODE\tVERSION\tPODS\tISOLATED\tAUDITED\tHELD\tPROBLEMS")
	left := 0
	for _, n := range r.Nodes {
		problems := len(n.Problems) + len(n.NotReady)
		if len(r.Nodes) > shownNodes && problems == 0 && n.lacks(r.Newest) == "" {
			left++
			continue
		}
		if n.Error != "" {
			fmt.Fprintf(tab, "  %s\t?\t?\t?\t?\t?\t?\n", logging.Plain(n.Node))
			continue
		}
		fmt.Fprintf(tab, "  %s\t%s\t%d\t%d\t%d\t%d\t%d\n", logging.Plain(n.Node),
			logging.Plain(cmp.Or(n.PolicyVersion, "none")), n.Pods, n.Isolated, n.Audited, n.Held, problems)
	}
	_ = tab.Flush() // a strings.Builder takes everything
	if left > 0 {
		fmt.Fprintf(b, "  and %d nodes of which there is nothing to say; see -o json\n", left)
	}
}

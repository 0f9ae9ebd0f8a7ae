// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/terminal"
)

// flowsSchema names the form of the JSON of flows.
const flowsSchema = "podwall.flows/v1"

// maxAsked is how many agents are asked at the same time.
const maxAsked = 32

type flowsCommand struct {
	source *source
	output output
	since  time.Duration
	follow bool
	limit  int
	filter flowFilter
	// agents are those of the cluster; set in tests.
	agents agents

	mu sync.Mutex // guards printing while flows come from several nodes
}

func newFlows(s Streams) *cobra.Command { return flowsOf(s, nil) }

func flowsOf(s Streams, a agents) *cobra.Command {
	c := &flowsCommand{source: newSource(s), agents: a}
	c.source.live = true
	cmd := &cobra.Command{
		Use:   "flows [POD]",
		Short: "Show flows that policies denied, on all nodes",
		Long: `flows shows what the agents of all nodes have denied, with the policies that deny
it and the rule that comes nearest, and what policies in audit mode would have
denied. It asks podwall-agent on each node, which must
run with --denied-flows-group; see docs/flows.md.

POD is [NAMESPACE/]NAME of a pod or of a workload: flows with it at either end.
Without POD all flows of the namespace are shown, with -A those of all namespaces.

It runs a command in the agents' pods, so it needs the right to create pods/exec
in their namespace, and to list pods. That is a right of operators: who has it
sees all namespaces. Users of one namespace read Events of the reason
PolicyDenied instead.

The form of -o json is ` + flowsSchema + `; with --follow it is one flow a line,
and flows that are kept are printed first, those of each node together.

Exit status: 0 shown; 3 some nodes did not answer, or record nothing (stderr says
which), 2 no answer: wrong command line, no agent, no right, no connection.`,
		Example: `  kubectl podwall flows -n shop
  kubectl podwall flows -n shop web --since 1h
  kubectl podwall flows -A --follow --node node1
  kubectl podwall flows -A --policy shop/web -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.source.bindCluster(cmd)
	c.output.bind(cmd)
	f := cmd.Flags()
	f.BoolVarP(&c.filter.all, "all-namespaces", "A", false, "flows of all namespaces")
	f.DurationVar(&c.since, "since", 5*time.Minute, "flows of the last `TIME`, as in 30s or 2h")
	f.BoolVar(&c.follow, "follow", false, "go on with what is denied from now on, until interrupted")
	f.StringVar(&c.filter.policy, "policy", "", "flows that this policy denies: `[NAMESPACE/]NAME`")
	f.StringVar(&c.filter.node, "node", "", "flows of the node `NAME` only")
	f.StringVar(&c.filter.verdict, "verdict", "", "flows with this verdict only: `denied|would-deny`")
	f.IntVar(&c.limit, "limit", 500, "show the newest `N` of the flows that are kept; 0 for all")
	cmd.ValidArgsFunction = c.source.complete
	return cmd
}

// flowFilter says which flows are shown.
type flowFilter struct {
	all                   bool
	namespace, pod        string
	policy, node, verdict string
}

// matches reports whether a flow is to be shown.
func (f flowFilter) matches(r *denied.Record) bool {
	ends := []*cluster.Key{r.Source.Pod, r.Destination.Pod}
	here := func(k *cluster.Key) bool {
		return k != nil && (f.all && f.pod == "" || k.Namespace == f.namespace) &&
			(f.pod == "" || k.Name == f.pod || strings.HasPrefix(k.Name, f.pod+"-"))
	}
	policy := func(k cluster.Key) bool { return f.policy == "" || k.String() == f.policy }
	return slices.ContainsFunc(ends, here) && slices.ContainsFunc(r.Policies, policy) &&
		(f.verdict == "" || f.verdict == string(r.Verdict))
}

// settle completes the filter and checks it.
func (c *flowsCommand) settle(args []string) error {
	namespace, err := c.source.namespace()
	if err != nil {
		return err
	}
	f := &c.filter
	f.namespace = namespace
	if len(args) > 0 {
		f.pod = strings.TrimPrefix(args[0], "pod/")
		if ns, name, ok := strings.Cut(f.pod, "/"); ok {
			f.namespace, f.pod = ns, name
		}
		if f.pod == "" || f.namespace == "" {
			return fmt.Errorf("%q names no pod, want [NAMESPACE/]NAME", args[0])
		}
	}
	if f.policy != "" && !strings.Contains(f.policy, "/") {
		f.policy = namespace + "/" + f.policy
	}
	switch {
	case c.since <= 0:
		return fmt.Errorf("--since %s: want a time above 0", c.since)
	case c.limit < 0:
		return fmt.Errorf("--limit %d: want 0 or more", c.limit)
	case f.verdict != "" && !slices.Contains(denied.Verdicts(), denied.Verdict(f.verdict)):
		return fmt.Errorf("unknown --verdict %q, want %s or %s", f.verdict, denied.Denied, denied.WouldDeny)
	}
	return c.output.check()
}

func (c *flowsCommand) run(ctx context.Context, args []string) error {
	if err := c.settle(args); err != nil {
		return err
	}
	asked, err := c.find(ctx)
	if err != nil {
		return err
	}
	report, failed := c.report(asked, c.ask(ctx, asked))
	if failed == len(asked) {
		return errors.New("no agent answers")
	}
	if !c.follow { // else all is printed
		if err := c.output.print(c.source.streams, report.String(), report); err != nil {
			return err
		}
	}
	if failed > 0 || slices.ContainsFunc(report.Nodes, func(s denied.Summary) bool { return !s.Recording }) {
		return exit{statusNotWritten}
	}
	return nil
}

// report puts the answers together, and counts the agents that gave none.
func (c *flowsCommand) report(asked []agentPod, answers []nodeAnswer) (r flowsReport, failed int) {
	r = flowsReport{Schema: flowsSchema, Flows: []denied.Record{}, Nodes: []denied.Summary{}}
	for i, a := range answers {
		r.Flows = append(r.Flows, a.flows...)
		if !c.follow {
			c.sayNode(asked[i], a)
		}
		if a.err != nil {
			failed++
			continue
		}
		r.Nodes = append(r.Nodes, a.summary)
	}
	slices.SortStableFunc(r.Flows, func(a, b denied.Record) int { return a.Last.Compare(b.Last) })
	if more := len(r.Flows) - c.limit; c.limit > 0 && more > 0 {
		c.say(fmt.Sprintf("%d older flows are not shown; see --limit", more))
		r.Flows = r.Flows[more:]
	}
	return r, failed
}

// find returns the agents to ask.
func (c *flowsCommand) find(ctx context.Context) ([]agentPod, error) {
	if c.agents == nil {
		config, err := c.source.cluster.ToRESTConfig()
		if err != nil {
			return nil, fmt.Errorf("finding the cluster: %w; %s", err, c.source.cure())
		}
		c.agents = newClusterAgents(config)
	}
	all, err := c.agents.list(ctx)
	if err != nil {
		return nil, err
	}
	asked := slices.DeleteFunc(slices.Clone(all),
		func(a agentPod) bool { return c.filter.node != "" && a.Node != c.filter.node })
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("no agent runs: no pod has the label %s", agentLabels)
	case len(asked) == 0:
		return nil, fmt.Errorf("no agent runs on a node %s", c.filter.node)
	}
	return asked, nil
}

// nodeAnswer is one agent's.
type nodeAnswer struct {
	flows   []denied.Record
	summary denied.Summary
	err     error
}

// ask asks agents, so many at the same time; those that are followed all at once.
func (c *flowsCommand) ask(ctx context.Context, list []agentPod) []nodeAnswer {
	answers := make([]nodeAnswer, len(list))
	room := maxAsked
	if c.follow {
		room = len(list)
	}
	slots := make(chan struct{}, room)
	var running sync.WaitGroup
	for i, a := range list {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			answers[i] = c.one(ctx, a)
		})
	}
	running.Wait()
	return answers
}

// one asks one agent. If it is followed, its flows are printed as they come.
func (c *flowsCommand) one(ctx context.Context, a agentPod) (got nodeAnswer) {
	if !a.Running {
		got.err = fmt.Errorf("its agent %s does not run", a.Key)
		return got
	}
	whole := false
	w := &lineWriter{each: func(l denied.Line) {
		switch {
		case l.Summary != nil && l.Summary.Missed > 0:
			c.say(fmt.Sprintf("node %s: %d flows came faster than they were read", a.Node, l.Summary.Missed))
		case l.Summary != nil:
			got.summary, whole = *l.Summary, true
			if c.follow {
				c.sayNode(a, got)
			}
		case l.Flow == nil || !c.filter.matches(l.Flow):
		case c.follow:
			got.err = errors.Join(got.err, c.show(l.Flow))
		default:
			got.flows = append(got.flows, *l.Flow)
		}
	}}
	err := c.agents.denied(ctx, a, c.since, c.follow, w)
	if err == nil && !whole && ctx.Err() == nil {
		err = errors.New("its answer is not complete")
	}
	if got.err = errors.Join(got.err, err); got.err != nil && c.follow {
		c.sayNode(a, got)
	}
	return got
}

// show prints one flow of one node, while others may do so too.
func (c *flowsCommand) show(r *denied.Record) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.output.form == "text" {
		return c.output.print(c.source.streams, flowText(r), nil)
	}
	if err := json.NewEncoder(c.source.streams.Out).Encode(r); err != nil {
		return fmt.Errorf("printing a flow: %w", err)
	}
	return nil
}

// say writes a line for people.
func (c *flowsCommand) say(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.source.say(text)
}

// sayNode says what a node's records leave out. For who follows it is said when it is known, otherwise
// in the order of the nodes.
func (c *flowsCommand) sayNode(a agentPod, got nodeAnswer) {
	s := got.summary
	switch {
	case got.err != nil:
		c.say(fmt.Sprintf("error: node %s does not answer: %v", a.Node, got.err))
	case !s.Recording:
		c.say(fmt.Sprintf("error: node %s records no denied flows: %s", a.Node, s.Why))
	case s.Suppressed > 0:
		c.say(fmt.Sprintf("node %s: since %s, %d packets were recorded and %d more denied",
			a.Node, s.Since.UTC().Format(time.RFC3339), s.Recorded, s.Suppressed))
	}
}

// flowsReport is the answer of flows.
type flowsReport struct {
	Schema string           `json:"schema"`
	Flows  []denied.Record  `json:"flows"`
	Nodes  []denied.Summary `json:"nodes"`
}

// String returns the flows for people, the oldest first.
func (r flowsReport) String() string {
	if len(r.Flows) == 0 {
		return "no flow was denied\n"
	}
	var b strings.Builder
	for i := range r.Flows {
		b.WriteString(flowText(&r.Flows[i]))
	}
	return b.String()
}

// flowText is a flow in a few lines.
func flowText(r *denied.Record) string {
	head := fmt.Sprintf("%s %s %s to %s %s", r.Last.UTC().Format(time.RFC3339), r.Node, r.Source, r.Destination,
		r.Service())
	if r.Count > 1 {
		head += fmt.Sprintf(", %d packets", r.Count)
	}
	return terminal.Wrap(logging.Plain(head), "  ") + "\n  " + r.Reason() + "\n"
}

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
	"github.com/podwall/podwall/internal/netpol/generate"
	"github.com/podwall/podwall/internal/terminal"
)

// flowsSchema names the form of the JSON of flows.
const flowsSchema = "podwall.flows/v1"

// maxAsked is how many agents are asked at the same time.
const maxAsked = 32

// The answer of one agent is bounded: a node that hangs holds up no other, and none fills the memory. An
// agent keeps fewer flows than that.
const (
	answerTime = time.Minute // without --request-timeout
	maxFlows   = 10_000
)

type flowsCommand struct {
	source *source
	output output
	since  time.Duration
	follow bool
	limit  int
	filter flowFilter
	// agents are those of the cluster; set in tests.
	agents agents
	// patience is how long an agent may take that is not followed; find sets it.
	patience time.Duration
	// silent is true if nothing is said about nodes: who asks finds it in the report.
	silent bool
	asked  time.Time // when; find sets it
	// each gets the flows that are followed, and told what is said, instead of the streams.
	each func(*denied.Record) error
	told func(string)

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
denied. It asks podwall-agent on each node, which must run with
--denied-flows-group; see docs/flows.md.

POD is [NAMESPACE/]NAME of a pod or of a workload: flows with it at either end.
Pods of a workload are known by their names: NAME-7c9f5d8b6-x2k4z, NAME-x2k4z,
NAME-0. Without POD all flows of the namespace are shown, with -A those of all
namespaces.

It runs a command in the agents' pods, so it needs the right to create pods/exec
in their namespace (--agents-namespace), and to list pods there. That is a right
of operators: who has it sees all namespaces. Users of one namespace read Events
of the reason PolicyDenied instead. A node has a minute to answer, or
--request-timeout; with --follow it has no end.

The form of -o json is ` + flowsSchema + `; with --follow it is one flow a line,
and flows that are kept are printed first, those of each node together. There is
no -o yaml with --follow.

Exit status: 0 shown; 3 some nodes did not answer, or record nothing (stderr says
which); 2 no answer: wrong command line, no agent, no right, no connection.`,
		Example: `  kubectl podwall flows -n shop
  kubectl podwall flows -n shop web --since 1h
  kubectl podwall flows -A --follow --node node1
  kubectl podwall flows -A --policy shop/web -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.source.bindCluster(cmd)
	c.source.bindAgents(cmd)
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
			(f.pod == "" || k.Name == f.pod || generate.MadeBy(f.pod, k.Name))
	}
	policy := func(k cluster.Key) bool { return f.policy == "" || k.String() == f.policy }
	return slices.ContainsFunc(ends, here) && slices.ContainsFunc(r.Policies, policy) &&
		(f.verdict == "" || f.verdict == string(r.Verdict))
}

// narrow reports whether more than a namespace is asked for.
func (f flowFilter) narrow() bool {
	return f.pod != "" || f.policy != "" || f.node != "" || f.verdict != ""
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
	case c.follow && c.output.form == "yaml":
		return errors.New("-o yaml does not go with --follow: want json, which is one flow a line, or text")
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
	r = flowsReport{Schema: flowsSchema, Flows: []denied.Record{}, Nodes: []denied.Summary{},
		narrow: c.filter.narrow(), Query: c.query(time.Now())}
	for i, a := range answers {
		r.Flows = append(r.Flows, a.flows...)
		if !c.follow && !c.silent {
			c.sayNode(asked[i], a)
		}
		if a.err != nil {
			failed++
			r.Failed = append(r.Failed, nodeFailure{asked[i].Node, a.err.Error()})
			continue
		}
		r.LeftOut += a.unread
		r.Nodes = append(r.Nodes, a.summary)
	}
	slices.SortStableFunc(r.Flows, func(a, b denied.Record) int { return a.Last.Compare(b.Last) })
	if more := len(r.Flows) - c.limit; c.limit > 0 && more > 0 {
		c.say(fmt.Sprintf("%d older flows are not shown; see --limit", more))
		r.Flows, r.LeftOut = r.Flows[more:], r.LeftOut+more
	}
	return r, failed
}

// find returns the agents to ask, and settles how long one may take.
func (c *flowsCommand) find(ctx context.Context) ([]agentPod, error) {
	c.asked = time.Now()
	var err error
	if c.patience, err = c.source.answerTime(); err != nil {
		return nil, err
	}
	var list []agentPod
	c.agents, list, err = c.source.findAgents(ctx, c.agents, c.filter.node)
	return list, err
}

// nodeAnswer is one agent's.
type nodeAnswer struct {
	flows   []denied.Record
	summary denied.Summary
	unread  int // flows above maxFlows
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
	bounded, end := context.WithCancel(ctx)
	if !c.follow {
		bounded, end = context.WithTimeout(ctx, c.patience)
	}
	defer end()
	whole := false
	w := &lineWriter{end: end, each: func(l denied.Line) {
		switch {
		case l.Summary != nil && l.Summary.Missed > 0:
			c.say(fmt.Sprintf("node %s: %d flows came faster than they were read", a.Node, l.Summary.Missed))
		case l.Summary != nil:
			got.summary, whole = *l.Summary, true
			got.summary.Node = a.Node // it speaks for no other
			if c.follow {
				c.sayNode(a, got)
			}
		case l.Flow == nil || !c.filter.matches(l.Flow):
		case c.follow:
			l.Flow.Node = a.Node
			got.err = errors.Join(got.err, c.show(l.Flow))
		case len(got.flows) >= maxFlows:
			got.unread++
		default:
			l.Flow.Node = a.Node
			got.flows = append(got.flows, *l.Flow)
		}
	}}
	err := c.agents.denied(bounded, a, c.since, c.follow, w)
	switch bad := w.close(); {
	case bad != nil:
		err = bad
	case err != nil, whole, ctx.Err() != nil:
	case bounded.Err() != nil:
		err = fmt.Errorf("it takes longer than %s; see --request-timeout", c.patience)
	default:
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
	if c.each != nil {
		return c.each(r)
	}
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
	if c.told != nil {
		c.told(text)
		return
	}
	c.source.say(text)
}

// more says that an agent answered with more flows than are read; empty if it did not.
func (a nodeAnswer) more() string {
	if a.unread == 0 {
		return ""
	}
	return fmt.Sprintf("%d flows above %d are left out", a.unread, maxFlows)
}

// reach says that a node does not have all records since a time; empty if it does.
func (a nodeAnswer) reach(begin time.Time) string {
	s := a.summary
	from, why := s.Since, "it records since then"
	if s.ForgottenTo.After(from) {
		from, why = s.ForgottenTo, fmt.Sprintf("%d older ones are forgotten", s.Forgotten)
	}
	switch {
	case from.After(begin):
		return fmt.Sprintf("records reach back to %s only (%s)", from.UTC().Format(time.RFC3339), why)
	case s.Forgotten > 0 && s.ForgottenTo.IsZero(): // it does not say of which time
		return fmt.Sprintf("%d records are forgotten", s.Forgotten)
	}
	return ""
}

// suppressed reports whether packets after a time may have no record.
func (a nodeAnswer) suppressed(begin time.Time) bool {
	s := a.summary
	return s.Suppressed > 0 && (s.SuppressedTo.IsZero() || s.SuppressedTo.After(begin))
}

// leftOut says how many packets have no record, and when the last one came.
func (a nodeAnswer) leftOut() string {
	s := a.summary
	if s.SuppressedTo.IsZero() { // it does not say
		return fmt.Sprintf("%d packets have no record", s.Suppressed)
	}
	return fmt.Sprintf("%d packets have no record, the last ones about %s; ask about the time since then",
		s.Suppressed, s.SuppressedTo.UTC().Format(time.RFC3339))
}

// sayNode says what a node's records leave out. For who follows it is said when it is known, otherwise
// in the order of the nodes.
func (c *flowsCommand) sayNode(a agentPod, got nodeAnswer) {
	s, node := got.summary, "node "+a.Node+": "
	for _, text := range []string{got.more(), got.reach(time.Now().Add(-c.since))} {
		if text != "" && got.err == nil && s.Recording {
			c.say(node + text)
		}
	}
	switch {
	case got.err != nil:
		c.say(fmt.Sprintf("error: node %s does not answer: %v", a.Node, got.err))
	case !s.Recording:
		c.say(fmt.Sprintf("error: node %s records no denied flows: %s", a.Node, s.Why))
	case got.suppressed(time.Now().Add(-c.since)):
		c.say(fmt.Sprintf("%ssince %s, %d packets were recorded and %d more denied",
			node, s.Since.UTC().Format(time.RFC3339), s.Recorded, s.Suppressed))
	}
}

// flowsReport is the answer of flows.
type flowsReport struct {
	Schema string           `json:"schema"`
	Flows  []denied.Record  `json:"flows"`
	Nodes  []denied.Summary `json:"nodes"`
	// Failed are the nodes that did not answer.
	Failed []nodeFailure `json:"failed,omitempty"`
	// LeftOut is how many flows are not in the list: above --limit, or too many of one node.
	LeftOut int        `json:"leftOut,omitempty"`
	Query   flowsQuery `json:"query"`

	narrow bool // only some flows of the namespaces were asked for
}

// nodeFailure says why a node did not answer.
type nodeFailure struct {
	Node  string `json:"node"`
	Error string `json:"error"`
}

// flowsQuery is what was asked: who reads the answer later knows what is not in it.
type flowsQuery struct {
	From      time.Time `json:"from"`
	To        time.Time `json:"to"`
	All       bool      `json:"allNamespaces,omitempty"`
	Namespace string    `json:"namespace,omitempty"`
	Pod       string    `json:"pod,omitempty"`
	Policy    string    `json:"policy,omitempty"`
	Node      string    `json:"node,omitempty"`
	Verdict   string    `json:"verdict,omitempty"`
}

// query says of which time each agent's answer is, and of what; now is when all have answered.
func (c *flowsCommand) query(now time.Time) flowsQuery {
	f := c.filter
	q := flowsQuery{From: now.Add(-c.since), To: c.asked, All: f.all && f.pod == "", Namespace: f.namespace, Pod: f.pod,
		Policy: f.policy, Node: f.node, Verdict: f.verdict}
	if q.All {
		q.Namespace = ""
	}
	return q
}

// gaps says why there may be flows in the time of the question that are not in the report; none if there
// are none.
func (r flowsReport) gaps() (list []string) {
	for _, f := range r.Failed {
		list = append(list, fmt.Sprintf("node %s does not answer: %s", f.Node, f.Error))
	}
	if len(r.Nodes) == 0 && len(r.Failed) == 0 {
		list = append(list, "no node answered")
	}
	if r.LeftOut > 0 {
		list = append(list, fmt.Sprintf("%d flows are left out; ask for less time, or with --limit 0", r.LeftOut))
	}
	for _, s := range r.Nodes {
		if why := whyUnknown(nodeAnswer{summary: s}, r.Query.From); why != "" {
			list = append(list, "node "+s.Node+": "+why)
		}
	}
	return list
}

// String returns the flows for people, the oldest first.
func (r flowsReport) String() string {
	switch {
	case len(r.Flows) > 0:
	case r.narrow:
		return "no flow matches\n"
	default:
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
	if by := r.By(); by != "" {
		head += " " + by
	}
	if r.Count > 1 {
		head += fmt.Sprintf(", %d packets", r.Count)
	}
	return terminal.Wrap(logging.Plain(head), "  ") + "\n  " + r.Reason() + "\n"
}

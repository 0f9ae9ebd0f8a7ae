// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
)

// waitSchema names the form of the JSON of wait.
const waitSchema = "podwall.wait/v1"

// forEnforced is the only condition of wait.
const forEnforced = "enforced"

type waitCommand struct {
	source  *source
	output  output
	what    string
	timeout time.Duration
	// agents and facts are those of the cluster; set in tests.
	agents agents
	facts  clusterFacts
	pause  time.Duration
}

func newWait(s Streams) *cobra.Command {
	return (&waitCommand{source: newSource(s), pause: askAgain}).command()
}

func (c *waitCommand) command() *cobra.Command {
	c.source.live = true
	cmd := &cobra.Command{
		Use:   "wait POLICY",
		Short: "Wait until a policy is enforced on all nodes",
		Long: `wait waits until the agents of all nodes enforce a policy as it is now, and the
nodes are ready. Each agent is asked until it does, once a second. A change during
the wait is not waited for.

POLICY is [NAMESPACE/]NAME. It needs the rights of kubectl podwall status, and to
get the policy. A policy in audit mode is not enforced; it is said, and the exit
status is 3.

The form of -o json is ` + waitSchema + `.

Exit status: 0 enforced on all nodes; 1 not within --timeout (the answer names the
nodes); 3 where agents run, but a node has none, the right to list nodes is
missing, or the policy is in audit mode (stderr says which); 2 no answer: wrong
command line, no such policy, no agent, no connection.`,
		Example: `  kubectl apply -f web.yaml && kubectl podwall wait -n shop web --for=enforced
  kubectl podwall wait shop/web --timeout 2m -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args[0]) },
	}
	c.source.bindCluster(cmd)
	c.source.bindAgents(cmd)
	c.output.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&c.what, "for", forEnforced, "the `CONDITION`: enforced")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "give up after this `TIME`")
	return cmd
}

// waitReport is the answer of wait.
type waitReport struct {
	Schema   string      `json:"schema"`
	Policy   cluster.Key `json:"policy"`
	Version  uint64      `json:"resourceVersion"`
	Enforced bool        `json:"enforced"`
	// Nodes is how many agents enforce it, Lacking are the others.
	Nodes        int           `json:"nodes"`
	Lacking      []nodeFailure `json:"lacking"`
	WithoutAgent []string      `json:"withoutAgent"`
	// Unknown says what could not be found out, and why it may not be enforced although it is in force.
	Unknown []string `json:"unknown"`
}

func (c *waitCommand) settle(arg string) (policy cluster.Key, patience time.Duration, err error) {
	if policy.Namespace, err = c.source.namespace(); err != nil {
		return policy, 0, err
	}
	policy.Name = arg
	if ns, name, ok := strings.Cut(arg, "/"); ok {
		policy = cluster.Key{Namespace: ns, Name: name}
	}
	switch {
	case policy.Name == "" || policy.Namespace == "" || strings.Contains(policy.Name, "/"):
		return policy, 0, fmt.Errorf("%q names no policy, want [NAMESPACE/]NAME", arg)
	case c.what != forEnforced:
		return policy, 0, fmt.Errorf("unknown --for %q, want %s", c.what, forEnforced)
	case c.timeout <= 0:
		return policy, 0, fmt.Errorf("--timeout %s: want a time above 0", c.timeout)
	}
	if err := c.output.check(); err != nil {
		return policy, 0, err
	}
	if patience, err = c.source.answerTime(); err != nil {
		return policy, 0, err
	}
	if c.facts == nil {
		c.facts, err = c.source.facts()
	}
	return policy, patience, err
}

func (c *waitCommand) run(ctx context.Context, arg string) error {
	policy, patience, err := c.settle(arg)
	if err != nil {
		return err
	}
	r := waitReport{Schema: waitSchema, Policy: policy, Lacking: []nodeFailure{}, WithoutAgent: []string{},
		Unknown: []string{}}
	version, own, ofNamespace, err := c.facts.policy(ctx, policy.Namespace, policy.Name)
	if err != nil {
		return c.source.unanswered(ctx, err)
	}
	r.Version = version
	if why := audits(own, ofNamespace); why != "" {
		r.Unknown = append(r.Unknown, why)
	}
	list, err := c.await(ctx, &r, patience)
	if err != nil {
		return err
	}
	nodes, err := c.facts.nodes(ctx)
	if err != nil {
		r.Unknown = append(r.Unknown, err.Error())
	}
	r.WithoutAgent = append(r.WithoutAgent, withoutAgent(nodes, list)...)
	r.Enforced = len(r.Lacking)+len(r.WithoutAgent)+len(r.Unknown) == 0
	for _, why := range r.Unknown {
		c.source.say("error: " + why)
	}
	if err := c.output.print(c.source.streams, r.String(), r); err != nil {
		return err
	}
	switch {
	case len(r.Lacking) > 0:
		return exit{statusNo}
	case !r.Enforced:
		return exit{statusNotWritten}
	}
	return nil
}

// audits says why a policy may not be enforced though agents have it.
func audits(own, ofNamespace map[string]string) string {
	mode, set := own[cluster.ModeAnnotation]
	switch {
	case mode == cluster.ModeAudit:
		return "the policy is in audit mode, which is not enforced, unless agents run with --policy-audit=forbid"
	case !set && ofNamespace[cluster.ModeAnnotation] == cluster.ModeAudit:
		return "its namespace is in audit mode: it is not enforced by agents that run with " +
			"--policy-audit=allow-namespaces"
	}
	return ""
}

// await asks the agents until all enforce the version, or the time is over. It returns those that there were
// last: agents may come and go meanwhile.
func (c *waitCommand) await(ctx context.Context, r *waitReport, patience time.Duration) (list []agentPod, err error) {
	end := time.Now().Add(c.timeout)
	done := map[cluster.Key]bool{} // by pod
	waiting := -1
	for {
		if c.agents, list, err = c.source.findAgents(ctx, c.agents, ""); err != nil {
			return nil, err
		}
		open := slices.DeleteFunc(slices.Clone(list), func(a agentPod) bool { return done[a.Key] })
		answers := askEnforced(ctx, c.agents, open, max(min(patience, time.Until(end)), time.Millisecond))
		r.Lacking = r.Lacking[:0]
		for i, n := range answers {
			if why := n.lacks(r.Version); why != "" {
				r.Lacking = append(r.Lacking, nodeFailure{n.Node, why})
			} else {
				done[open[i].Key] = true
			}
		}
		r.Nodes = len(list) - len(r.Lacking)
		left := time.Until(end)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case len(r.Lacking) == 0, left <= 0:
			return list, nil
		case len(r.Lacking) != waiting:
			waiting = len(r.Lacking)
			c.source.say(fmt.Sprintf("waiting for %d of %d nodes", waiting, len(list)))
		}
		sleep(ctx, min(c.pause, left))
	}
}

// String returns the report for people.
func (r waitReport) String() string {
	var b strings.Builder
	state := "is enforced on"
	if len(r.Unknown) > 0 {
		state = "is in force on"
	}
	fmt.Fprintf(&b, "%s %s %d of %d nodes (resourceVersion %d)\n", r.Policy, state, r.Nodes,
		r.Nodes+len(r.Lacking)+len(r.WithoutAgent), r.Version)
	for _, n := range r.Lacking {
		fmt.Fprintf(&b, "%s: %s\n", n.Node, cmp.Or(n.Error, "no answer"))
	}
	for _, name := range r.WithoutAgent {
		fmt.Fprintf(&b, "%s: no agent\n", name)
	}
	return b.String()
}

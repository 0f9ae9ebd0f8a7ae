// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/generate"
	"github.com/podwall/podwall/internal/netpol/lint"
)

type generateCommand struct {
	source *source
	form   string
	since  time.Duration
	all    bool
	flows  string
	// agents are those of the cluster; set in tests.
	agents agents

	namespace, pod string // of the pods that get policies
}

func newGenerate(s Streams) *cobra.Command { return generateOf(s, nil) }

func generateOf(s Streams, a agents) *cobra.Command {
	c := &generateCommand{source: newSource(s), agents: a}
	cmd := &cobra.Command{
		Use:   "generate [POD]",
		Short: "Write policies that allow what was seen, and nothing else",
		Long: `generate prints NetworkPolicies that allow the flows that policies in audit mode
would have denied: of the pods of a namespace (-n), of all (-A), or of POD,
[NAMESPACE/]NAME of a pod or of a workload. It applies nothing. Read them before you
do: they allow whatever was seen, also an attack.

Flows come from the agents of all nodes, which must run with --denied-flows-group,
or from the answer of kubectl podwall flows -o json (--flows). Flows that were
denied become no rule. A policy isolates the directions in which something was
seen; it selects the pods by the labels of their workload, without those that a
rollout changes. Annotations say how often and when the flows of each rule were
seen, and the window. Peers outside of the cluster become ipBlocks of one address;
addresses of nodes, Services and the pods' network do not: flows with them are
left out, and named on standard error. Policies that exist are not replaced.

It refuses if the records of the window are not complete: a node does not answer,
records nothing or not for so long, or packets have no record.

Exit status: 0 policies for all that was seen; 1 refused (stderr says why); 3 some
flows are left out, or an object could not be read (stderr says which); 2 no
answer: wrong command line, nothing was seen, no connection.`,
		Example: `  kubectl podwall generate -n shop --since 24h > policies.yaml
  kubectl podwall generate shop/web --since 24h | kubectl podwall diff -
  kubectl podwall flows -A --since 24h --limit 0 -o json > seen.json
  kubectl podwall generate -n shop --flows seen.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	c.source.bind(cmd)
	c.source.bindAgents(cmd)
	f := cmd.Flags()
	f.StringVarP(&c.form, "output", "o", "yaml", "form of the policies: `yaml|json`")
	f.BoolVarP(&c.all, "all-namespaces", "A", false, "policies for the pods of all namespaces")
	f.DurationVar(&c.since, "since", time.Hour, "from the flows of the last `TIME`, as in 24h")
	f.StringVar(&c.flows, "flows", "", "`FILE` with the answer of flows -o json instead of asking the agents")
	cmd.ValidArgsFunction = c.source.complete
	return cmd
}

// settle completes and checks the command line.
func (c *generateCommand) settle(args []string) (err error) {
	if c.namespace, err = c.source.namespace(); err != nil {
		return err
	}
	if len(args) > 0 {
		c.pod = strings.TrimPrefix(args[0], "pod/")
		if ns, name, ok := strings.Cut(c.pod, "/"); ok {
			c.namespace, c.pod = ns, name
		}
		if c.pod == "" || c.namespace == "" {
			return fmt.Errorf("%q names no pod, want [NAMESPACE/]NAME", args[0])
		}
	}
	switch {
	case c.form != "yaml" && c.form != "json":
		return fmt.Errorf("unknown output %q, want yaml or json", c.form)
	case c.since <= 0:
		return fmt.Errorf("--since %s: want a time above 0", c.since)
	case c.source.files() && c.flows == "":
		return errors.New("files say nothing about traffic: name the answer of kubectl podwall flows with --flows")
	}
	return nil
}

func (c *generateCommand) run(ctx context.Context, args []string) error {
	if err := c.settle(args); err != nil {
		return err
	}
	sc, err := c.source.open(ctx)
	if err != nil {
		return err
	}
	seen, err := c.seen(ctx)
	if err != nil {
		return err
	}
	chosen := func(k cluster.Key) bool { return c.chosen(sc, k) }
	if gaps := slices.Concat(c.narrower(seen.Query), seen.gaps(), sc.unseen(seen, chosen)); len(gaps) > 0 {
		for _, why := range gaps {
			c.source.say("error: " + why)
		}
		c.source.say("refused: there may be flows without a record, which the policies would deny")
		return exit{statusNo}
	}
	r := generate.Policies(generate.Input{Snap: sc.snap, Nodes: sc.nodes, Services: sc.serviceAddresses(),
		Workload: sc.workload, Records: seen.Flows, Chosen: chosen, From: seen.Query.From, To: seen.Query.To})
	c.sayResult(sc, r)
	if len(r.Policies) == 0 && len(r.LeftOut) == 0 {
		return errors.New("nothing to write: policies in audit mode would have denied no flow of these pods; put a " +
			"policy that selects them and allows nothing into audit mode, and wait for traffic")
	}
	if err := c.print(r.Policies); err != nil {
		return err
	}
	if len(r.LeftOut) > 0 {
		return exit{statusNotWritten}
	}
	return sc.status(false)
}

// chosen reports whether a pod gets a policy.
func (c *generateCommand) chosen(sc *scene, k cluster.Key) bool {
	return (c.all && c.pod == "" || k.Namespace == c.namespace) &&
		(c.pod == "" || k.Name == c.pod || sc.workload[k] == c.pod || generate.MadeBy(c.pod, k.Name))
}

// seen returns the records: of the agents, or of a file.
func (c *generateCommand) seen(ctx context.Context) (r flowsReport, err error) {
	if c.flows == "" {
		f := &flowsCommand{source: c.source, since: c.since, agents: c.agents, silent: true,
			filter: flowFilter{all: true}}
		asked, err := f.find(ctx)
		if err != nil {
			return r, err
		}
		r, _ = f.report(asked, f.ask(ctx, asked))
		return r, nil
	}
	text, err := c.readFlows()
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err == nil && r.Schema != flowsSchema {
		err = fmt.Errorf("it has the schema %q, want %s", r.Schema, flowsSchema)
	}
	if err != nil {
		return r, fmt.Errorf("reading --flows %s: %w; it has to be the answer of kubectl podwall flows -o json "+
			"without --follow", c.flows, err)
	}
	return r, nil
}

func (c *generateCommand) readFlows() ([]byte, error) {
	if c.flows == "-" {
		return io.ReadAll(c.source.streams.In)
	}
	return os.ReadFile(c.flows)
}

// narrower says what a question about flows left out that this command needs.
func (c *generateCommand) narrower(q flowsQuery) (list []string) {
	for _, one := range []struct{ flag, value string }{{"POD", q.Pod}, {"--policy", q.Policy}, {"--node", q.Node},
		{"--verdict", q.Verdict}} {
		if one.value != "" {
			list = append(list, fmt.Sprintf("the flows are only those of %s %s: ask without it", one.flag, one.value))
		}
	}
	switch {
	case q.All:
	case c.all && c.pod == "":
		list = append(list, "the flows are only those of namespace "+q.Namespace+": ask with -A")
	case q.Namespace != c.namespace:
		list = append(list, fmt.Sprintf("the flows are only those of namespace %s: ask with -n %s, or -A", q.Namespace,
			c.namespace))
	}
	return list
}

// unseen names the nodes of chosen pods of which there is no answer.
func (sc *scene) unseen(r flowsReport, chosen func(cluster.Key) bool) (list []string) {
	for _, p := range sc.snap.Pods {
		answered := slices.ContainsFunc(r.Nodes, func(s denied.Summary) bool { return s.Node == p.Node })
		text := fmt.Sprintf("node %s has pods, and no agent that answered", p.Node)
		failed := slices.ContainsFunc(r.Failed, func(f nodeFailure) bool { return f.Node == p.Node })
		if p.Networked() && chosen(p.Key) && !answered && !failed && !slices.Contains(list, text) {
			list = append(list, text)
		}
	}
	return list
}

func (sc *scene) serviceAddresses() map[netip.Addr]bool {
	m := map[netip.Addr]bool{}
	for a := range sc.addresses {
		m[a] = true
	}
	for _, f := range sc.fronts {
		m[f.Front.Addr()] = true
		for _, a := range f.Others {
			m[a] = true
		}
	}
	return m
}

// sayResult prints what to know about the policies, and what lint asks about them.
func (c *generateCommand) sayResult(sc *scene, r generate.Result) {
	for _, l := range r.LeftOut {
		c.source.say(l.String())
	}
	for _, text := range r.Notes {
		c.source.say(text)
	}
	now := *sc.snap
	now.Policies = nil
	for _, np := range r.Policies {
		p, _ := convert.Policy(np)
		now.Policies = append(now.Policies, p)
	}
	for _, f := range lint.All(&now, lint.Facts{ContainerPorts: sc.declared}) {
		c.source.say(f.String())
	}
}

// print prints the policies as documents of YAML, or as a list of JSON.
func (c *generateCommand) print(list []*networkingv1.NetworkPolicy) error {
	var text []byte
	var err error
	if c.form == "json" {
		text, err = json.MarshalIndent(map[string]any{"apiVersion": "v1", "kind": "List",
			"items": append([]*networkingv1.NetworkPolicy{}, list...)}, "", "  ")
		text = append(text, '\n')
	}
	for i, p := range list {
		if c.form == "json" || err != nil {
			break
		}
		if i > 0 {
			text = append(text, "---\n"...)
		}
		var one []byte
		one, err = yaml.Marshal(p)
		text = append(text, one...)
	}
	if err == nil {
		_, err = c.source.streams.Out.Write(text)
	}
	if err != nil {
		return fmt.Errorf("printing the policies: %w", err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/examples"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/source/manifest"
)

type demo struct {
	bedFlags
	streams Streams
	output  string
	wirings []string
}

func newDemo(s Streams) *cobra.Command {
	d := &demo{streams: s}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run five example policies, and the table of what they must do",
		Long: `demo builds two nodes with pods in three namespaces and two hosts outside, runs
podwall-agent in both nodes, applies five example policies one after another,
and shows who reaches whom before and after each.

✓ arrived   ✗ dropped   4 only IPv4 arrived   [ ] changed by the policy

It ends with a table of what these policies must do, next to what was reported
for kube-router. Every verdict is a real packet that arrived in the namespace of
its destination, or that a drop counter accounts for.

` + verdictStatusHelp,
		Example: `  podwall-lab demo
  podwall-lab demo --wiring bridge --datapath filter
  podwall-lab demo -o json > demo.json`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd.Context()) },
	}
	d.bind(cmd)
	cmd.Flags().StringVarP(&d.output, "output", "o", "text", "form of the answer: `text|json`")
	cmd.Flags().StringSliceVar(&d.wirings, "wiring", []string{"routed", "bridge"},
		"how pods are wired, one or more `LIST` of "+wiringNames())
	return cmd
}

// exampleView is one example, measured before and under its policy.
type exampleView struct {
	example
	before, after *view
	// wrong is where the kernel differs from what the policies say.
	wrong []string
}

func exampleName(e example) string { return fmt.Sprintf("example %d", e.Number) }

// run runs the demo and prints it.
func (d *demo) run(ctx context.Context) error {
	wirings, err := parseWirings(d.wirings)
	if err != nil {
		return err
	}
	if d.output != "text" && d.output != "json" {
		return fmt.Errorf("unknown output %q, want text or json", d.output)
	}
	if err := d.ready(wirings); err != nil {
		return err
	}
	report := &demoReport{Schema: demoSchema, Datapath: d.datapath}
	p := printer{d.streams, paint(d.streams.Color), d.output == "json"}
	for _, w := range wirings {
		if err := d.wiring(ctx, w, report, p); err != nil {
			return err
		}
	}
	report.finish()
	if err := p.summary(report); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	if !report.Pass {
		return exit{statusDiffers}
	}
	return nil
}

// wiring runs all examples on one wiring.
func (d *demo) wiring(ctx context.Context, w lab.Wiring, report *demoReport, p printer) (err error) {
	start := time.Now()
	base, err := examples.Files.ReadFile("demo/cluster.yaml")
	if err != nil {
		return err
	}
	stage, err := newStage(base)
	if err != nil {
		return err
	}
	if len(report.wirings) == 0 {
		p.cast(stage)
	}
	t, err := d.start(ctx, w, stage.nodes, nil, nil)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := t.Close(); err == nil {
			err = closeErr
		}
	}()
	p.wiring(w, time.Since(start))
	m := wiringReport{Wiring: string(w)}
	for _, e := range seedExamples() {
		shown, err := stage.example(ctx, t, e)
		if err != nil {
			return fmt.Errorf("%s on wiring %s: %w", exampleName(e), w, err)
		}
		p.example(shown, report.view(e.Number))
		m.shown = append(m.shown, shown)
	}
	m.totals, m.Seconds = t.Totals(), time.Since(start).Seconds()
	report.add(m)
	return nil
}

// stage is the demo's cluster without policies.
type stage struct {
	base  []byte
	nodes []string
	ends  []end
	state trial.State
}

func newStage(base []byte) (*stage, error) {
	r, err := manifest.Parse("cluster.yaml", base)
	if err != nil {
		return nil, fmt.Errorf("reading the demo's cluster: %w", err)
	}
	s := &stage{base: base, nodes: nodesOf(r.Pods)}
	slices.SortFunc(r.Pods, func(a, b *cluster.Pod) int { return cmp.Compare(a.Key.Name, b.Key.Name) })
	for _, p := range r.Pods {
		s.ends = append(s.ends, end{name: p.Key.String(), short: p.Key.Name, place: p.Key.String(), pod: p,
			addrs: p.IPs})
		s.state.Pods = append(s.state.Pods, lab.PodSpec{Key: p.Key, Node: p.Node, IPs: p.IPs})
	}
	for _, h := range []trial.Host{
		{Name: "in", Addrs: []netip.Addr{netip.MustParseAddr("14.215.1.1"), netip.MustParseAddr("2001:db8:14:215::1")}},
		{Name: "out", Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.10"),
			netip.MustParseAddr("2001:db8:cafe::a")}},
	} {
		s.ends = append(s.ends, end{name: h.Name, short: h.Name, place: h.Name, addrs: h.Addrs})
		s.state.Hosts = append(s.state.Hosts, h)
	}
	return s, nil
}

// example measures the cluster without and with the policy. Both are changes
// to the running agents.
func (s *stage) example(ctx context.Context, t *trial.Trial, e example) (exampleView, error) {
	policy, err := examples.Files.ReadFile(e.File)
	if err != nil {
		return exampleView{}, err
	}
	shown := exampleView{example: e}
	for _, step := range []struct {
		policy []byte
		to     **view
	}{{nil, &shown.before}, {policy, &shown.after}} {
		v, wrong, err := s.measure(ctx, t, step.policy)
		if err != nil {
			return shown, err
		}
		*step.to = v
		shown.wrong = append(shown.wrong, wrong...)
	}
	return shown, nil
}

func (s *stage) measure(ctx context.Context, t *trial.Trial, policy []byte) (*view, []string, error) {
	text := append(append([]byte{}, s.base...), "---\n"...)
	text = append(text, policy...)
	r, err := manifest.Parse("demo.yaml", text)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the example: %w", err)
	}
	state := s.state
	state.Files = map[string][]byte{"demo.yaml": text}
	if err := t.Apply(ctx, state); err != nil {
		return nil, nil, err
	}
	v, err := askAll(ctx, t, s.ends, demoPorts(), all(s.ends))
	if err != nil {
		return nil, nil, err
	}
	return v, v.compare(r.Snapshot()), nil
}

// nodesOf returns the nodes of the pods, sorted.
func nodesOf(pods []*cluster.Pod) []string {
	var nodes []string
	for _, p := range pods {
		if p.Node != "" {
			nodes = append(nodes, p.Node)
		}
	}
	return sortedUnique(nodes)
}

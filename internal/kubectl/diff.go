// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/explain/diff"
	"github.com/podwall/podwall/internal/source/manifest"
)

type diffCommand struct {
	source       *source
	output       output
	ports, hosts []string
}

func newDiff(s Streams) *cobra.Command {
	d := &diffCommand{source: newSource(s)}
	cmd := &cobra.Command{
		Use:   "diff [OLD] NEW",
		Short: "Say which flows open and close, and why",
		Long: `diff compares who reaches whom in two states, and says which flows open, which
close, and which rule or policy is the cause.

With OLD and NEW these are files or directories with all objects. With NEW alone
its objects are added to those of the cluster, or of -f, and replace those of the
same name, as kubectl apply does: namespaces, pods and policies. A pod that is
there keeps its node and addresses. Pods of workloads of NEW are not made.

All ports are compared, in ranges inside of which no policy tells ports apart, and
protocols without ports as one; --port names single ports instead. Without --host
the hosts outside are one of each family, and one in each block that a policy
names, eight at most. The form of -o json is ` + diff.Schema + `.

Exit status: 0 no flow opens or closes; 1 some do; ` + statusHelp,
		Example: `  kubectl podwall diff ./new-policies
  kubectl podwall diff -f ./manifests ./new-policies
  kubectl podwall diff ./old ./new --port tcp:8080`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return d.run(cmd.Context(), args) },
	}
	d.source.bind(cmd)
	d.output.bind(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&d.ports, "port", nil,
		"compare these `PORTS` only, as in tcp:80, 53/udp or icmp; may be given again")
	f.StringSliceVar(&d.hosts, "host", nil, "`ADDRESSES` outside that are compared; may be given again")
	return cmd
}

func (d *diffCommand) run(ctx context.Context, args []string) error {
	if err := d.output.check(); err != nil {
		return err
	}
	if len(args) == 2 && d.source.files() {
		return errors.New("with -f name one more path, NEW; or name OLD and NEW without -f")
	}
	single, err := parsePortFlags(d.ports)
	if err != nil {
		return err
	}
	before, after, err := d.scenes(ctx, args)
	if err != nil {
		return err
	}
	o := diff.Options{Hosts: usualHosts(before, after), Ports: diff.Ranges(before.snap, after.snap)}
	if len(single) > 0 {
		o.Ports = nil
		for _, p := range single {
			o.Ports = append(o.Ports, diff.Range{Protocol: p.Protocol, First: p.Number, Last: p.Number})
		}
	}
	if len(d.hosts) > 0 {
		if o.Hosts, err = before.parseHosts(d.hosts); err == nil {
			o.Hosts, err = after.parseHosts(d.hosts)
		}
		if err != nil {
			return err
		}
	}
	report, err := diff.Compare(before.state(), after.state(), o)
	if err != nil {
		return err
	}
	if err := d.output.print(d.source.streams, report.String(), report); err != nil {
		return err
	}
	after.asWritten = after.asWritten && before.asWritten
	return after.status(len(report.Changes) > 0)
}

func (sc *scene) state() diff.State {
	return diff.State{Snapshot: sc.snap, Answers: sc.answers, Workload: sc.workload}
}

// scenes reads both states, and prints what was found about them, once.
func (d *diffCommand) scenes(ctx context.Context, args []string) (before, after *scene, err error) {
	next := *d.source
	next.from.Paths = args[len(args)-1:]
	next.from.Text = nil
	if slices.Contains(d.source.from.Paths, manifest.Stdin) && next.from.Paths[0] == manifest.Stdin {
		return nil, nil, errors.New("the standard input can be one of the states only")
	}
	if len(args) == 2 {
		d.source.from.Paths = args[:1]
	}
	if before, err = d.source.open(ctx); err != nil {
		return nil, nil, err
	}
	if len(args) == 2 {
		after, err = next.read(ctx)
	} else if err = next.readStdin(); err == nil {
		after, err = before.apply(next.from)
	}
	if err != nil {
		return nil, nil, err
	}
	news := *after
	news.notes = slices.DeleteFunc(slices.Clone(after.notes), func(n string) bool {
		return slices.Contains(before.notes, n)
	})
	news.found = slices.DeleteFunc(slices.Clone(after.found), func(f cluster.Diagnostic) bool {
		return slices.Contains(before.found, f)
	})
	d.source.sayAll(&news)
	return before, after, nil
}

// apply returns the scene with the objects of manifests added to it; those of the same name
// are replaced.
func (sc *scene) apply(from manifest.From) (*scene, error) {
	loaded, err := manifest.Load(from)
	if err != nil {
		return nil, err
	}
	objects, err := manifest.Objects(from)
	if err != nil {
		return nil, fmt.Errorf("reading the new objects: %w", err)
	}
	written := map[string]bool{} // namespaces that are not only mentioned
	for _, o := range objects {
		if o.Kind == "Namespace" {
			written[o.Key.Name] = true
		}
	}
	merged := &manifest.Result{Namespaces: slices.Clone(sc.snap.Namespaces), Pods: slices.Clone(sc.snap.Pods),
		Policies: slices.Clone(sc.snap.Policies)}
	for _, n := range loaded.Namespaces {
		i := slices.IndexFunc(merged.Namespaces, func(o *cluster.Namespace) bool { return o.Name == n.Name })
		if i < 0 {
			merged.Namespaces = append(merged.Namespaces, n)
		} else if written[n.Name] {
			merged.Namespaces[i] = n
		}
	}
	for _, p := range loaded.Policies {
		i := slices.IndexFunc(merged.Policies, func(o *cluster.Policy) bool { return o.Key == p.Key })
		if i < 0 {
			merged.Policies = append(merged.Policies, p)
		} else {
			merged.Policies[i] = p
		}
	}
	for _, p := range loaded.Pods {
		i := slices.IndexFunc(merged.Pods, func(o *cluster.Pod) bool { return o.Key == p.Key })
		if i < 0 {
			merged.Pods = append(merged.Pods, p)
		} else {
			merged.Pods[i] = placed(p, merged.Pods[i])
		}
	}
	snap, found := complete.Settle(merged, sc.nodes, sc.allowed)
	next := newScene(snap, sc.nodes)
	next.workload, next.fronts, next.namespace = sc.workload, sc.fronts, sc.namespace
	next.found = slices.Concat(found, slices.DeleteFunc(loaded.Diagnostics, complete.IsUnused))
	next.answers.Report(next.found)
	next.answers.Report(slices.DeleteFunc(slices.Clone(sc.found), func(d cluster.Diagnostic) bool {
		return slices.ContainsFunc(loaded.Policies, func(p *cluster.Policy) bool { return p.Key == d.Object })
	}))
	next.asWritten = loaded.AsWritten() && !slices.ContainsFunc(found, isError)
	for _, p := range loaded.Pods {
		if now := next.answers.Pod(p.Key); now != nil && len(now.IPs) == 0 {
			next.notes = append(next.notes, fmt.Sprintf("pod %s has no address yet: its flows are not compared", p.Key))
		}
	}
	return next, nil
}

// placed is a new state of a pod at the place of the old one, unless it says another.
func placed(p, at *cluster.Pod) *cluster.Pod {
	c := *p
	if c.Node == "" {
		c.Node = at.Node
	}
	if len(c.IPs) == 0 {
		c.IPs = at.IPs
	}
	return &c
}

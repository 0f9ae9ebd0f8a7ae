// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/source/manifest"
)

type run struct {
	bedFlags
	scopeFlags
	streams       Streams
	manifests     *manifestFlags
	wiring        string
	output        string
	probes, hosts []string
	ruleset, why  bool
}

func newRun(s Streams) *cobra.Command {
	r := &run{streams: s, manifests: &manifestFlags{in: s.In}}
	cmd := &cobra.Command{
		Use:   "run -f PATH",
		Short: "Show who reaches whom under your own manifests",
		Long: `run puts the Pods of your manifests into the lab, runs podwall-agent on them,
and shows who reaches whom with your NetworkPolicies, and what they changed.

✓ arrived   ✗ dropped   4 only IPv4 arrived   [ ] changed by the policies
~ reaches some pods of a Service, others not

Pods without a node or an address get them. Of a Deployment, StatefulSet,
ReplicaSet, Job or CronJob two pods are made at most, of a DaemonSet one for
each node. Services with a selector work. Hosts outside are chosen so that every
CIDR block of your policies has one; --host names others. Ports are those of the
containers and of the policies, or --probe. What is left out is said.

All of the cluster is there; --namespace, --from and --to say what of it is
tried and shown. A REF is NAMESPACE, NAMESPACE/POD, NAMESPACE/WORKLOAD, a label
(app=web or NAMESPACE/app=web), node:NAME, a host's address, or outside. Pods of
one namespace and node with the same labels and verdicts are one row.

--why explains the denied ones: the policies that isolate the pod, the nearest
rule, each field of it that is not met, and one change that would allow it. It
marks with a what arrived only because policies are in audit mode.

Every verdict is compared with the text of the policies; a difference is
reported and the exit status is 1. It is 3 where an object could not be read, or
a policy is not enforced as it is written: stderr and -o json say which. With
nothing but warnings it is 0.`,
		Example: `  podwall-lab run -f ./manifests
  podwall-lab run -f app.yaml --wiring bridge --probe tcp:80,udp:53
  podwall-lab run -f ./manifests --host 192.0.2.7 --ruleset
  podwall-lab run -R -f ./deploy -f extra-policy.yaml
  podwall-lab run -f ./manifests --to shop/app=web --from outside --why
  kubectl get ns,pods,netpol,svc -A -o yaml | podwall-lab run -f -`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	r.bedFlags.bind(cmd)
	r.scopeFlags.bind(cmd)
	r.extra.bind(cmd)
	r.manifests.bind(cmd)
	f := cmd.Flags()
	f.StringVarP(&r.output, "output", "o", "text", "form of the answer: `text|json`")
	f.StringVar(&r.wiring, "wiring", "routed", "how pods are wired: one `NAME` of "+wiringNames())
	f.StringSliceVar(&r.probes, "probe", nil, "`PORTS` to try instead of those in the manifests, as in tcp:80,udp:53")
	f.StringSliceVar(&r.hosts, "host", nil, "`ADDRS` of hosts outside, instead of chosen ones")
	f.BoolVar(&r.why, "why", false,
		"also say why flows are denied: the nearest rule, and one change that would allow them")
	f.BoolVar(&r.ruleset, "ruleset", false, "also print the nftables rules of each node")
	return cmd
}

// runReport is the answer of run.
type runReport struct {
	Schema    string        `json:"schema"`
	Wiring    string        `json:"wiring"`
	Datapath  string        `json:"datapath"`
	Endpoints []string      `json:"endpoints"`
	Probes    []probeReport `json:"probes"`
	Services  []serviceView `json:"services"`
	// Groups are endpoints that are shown as one: pods of one namespace and node with the
	// same labels and the same verdicts.
	Groups [][]string `json:"groups"`
	// Why has the reasons of denied flows; empty without --why.
	Why []reason `json:"why"`
	// Audited are flows that arrived only because policies are in audit mode; empty without --why.
	Audited []auditedFlow `json:"audited"`
	// Differences are verdicts that are not what the policies say.
	Differences []string `json:"differences"`
	// Invented says which pods were made of workloads.
	Invented []string `json:"invented"`
	// LeftOut are objects that were not tried, and why; Notes are what to know beside.
	LeftOut []leftOut `json:"leftOut"`
	Notes   []string  `json:"notes"`
	// Diagnostics are what is to be said about the manifests.
	Diagnostics []cluster.Diagnostic `json:"diagnostics"`
	faults      []cluster.Diagnostic // of them, without the questions

	before, after *view
	groups        []group
	asWritten     bool // see manifest.Result
}

// runSchema names the form of the JSON of run.
const runSchema = "podwall.run/v1"

func (r *run) run(ctx context.Context) (err error) {
	wirings, err := parseWirings([]string{r.wiring})
	if err != nil {
		return err
	}
	if r.output != "text" && r.output != "json" {
		return fmt.Errorf("unknown output %q, want text or json", r.output)
	}
	if r.ruleset && r.output == "json" {
		return errors.New("--ruleset prints text; leave -o json out, or use the command ruleset")
	}
	ports, err := parsePorts(r.probes)
	if err != nil {
		return err
	}
	hosts, err := parseHosts(r.hosts)
	if err != nil {
		return err
	}
	if err := r.extra.parse(); err != nil {
		return err
	}
	if err := r.ready(wirings); err != nil {
		return err
	}
	from, err := r.manifests.read()
	if err != nil {
		return err
	}
	unused := map[string][]string{}
	idle := func(d cluster.Diagnostic) bool {
		if complete.IsUnused(d) {
			unused[d.Kind] = append(unused[d.Kind], d.Object.String())
			return true
		}
		return complete.IsWorkload(d)
	}
	loaded, err := loadManifests(from, r.streams, idle)
	if err != nil {
		return err
	}
	in, err := complete.Read(from)
	if err != nil {
		return err
	}
	p, err := r.planned(in, loaded, ports, hosts)
	if err != nil {
		return err
	}
	p.leftOut = append(whatIsLeftOut(unused, p.snap, loaded.Services), unusable(in)...)
	report := r.newReport(in, loaded, p)
	if r.ruleset {
		r.printRulesets(p)
	}
	if err := r.measure(ctx, wirings[0], p, report); err != nil {
		return err
	}
	return r.print(report)
}

// newReport returns the report with all that is known before something was measured,
// and says on stderr what is not in the answer itself.
func (r *run) newReport(in *complete.Input, loaded *manifest.Result, p *plan) *runReport {
	report := &runReport{Schema: runSchema, Wiring: r.wiring, Datapath: r.datapath,
		Services: []serviceView{}, Differences: []string{}, Groups: [][]string{}, Why: []reason{},
		LeftOut: p.leftOut, Notes: append([]string{}, p.notes...),
		Invented: append([]string{}, in.Invented...), Diagnostics: append([]cluster.Diagnostic{},
			loaded.Diagnostics...),
		asWritten: loaded.AsWritten() && !hasErrors(p.found)}
	for _, text := range in.Invented {
		fmt.Fprintln(r.streams.Err, logging.Plain(text))
	}
	tell(r.streams, p.found)
	tell(r.streams, p.questions)
	report.faults = append(slices.Clone(report.Diagnostics), p.found...)
	report.Diagnostics = slices.Concat(report.faults, p.questions)
	return report
}

func (r *run) printRulesets(p *plan) {
	for _, node := range p.nodes {
		text := rulesetOf(p.snap, node, r.datapath, hasBridge(lab.Wiring(r.wiring)))
		fmt.Fprintf(r.streams.Out, "# node %s\n%s\n", logging.Plain(node), text)
	}
}

// measure builds the lab and brings it to the manifests, without and with their policies.
func (r *run) measure(ctx context.Context, w lab.Wiring, p *plan, report *runReport) error {
	t, err := r.start(ctx, w, p.nodes, p.used, p.podAddrs())
	if err != nil {
		return err
	}
	err = report.compare(ctx, t, p, r.why)
	if err == nil && r.why {
		err = report.explain(p.snap)
	}
	if closeErr := t.Close(); err == nil {
		err = closeErr
	}
	return err
}

// compare measures without and with the policies, and what Services make of it. audit says that it is asked
// what arrives only because policies are in audit mode.
func (r *runReport) compare(ctx context.Context, t *trial.Trial, p *plan, audit bool) (err error) {
	if r.before, err = applied(ctx, t, p, p.bare); err != nil {
		return err
	}
	if r.after, err = applied(ctx, t, p, p.full); err != nil {
		return err
	}
	views, err := measureServices(ctx, t, p)
	if err != nil {
		return err
	}
	r.Services = append(r.Services, views...)
	if audit {
		if err := r.after.audit(p.snap); err != nil {
			return err
		}
	}
	r.finish(r.after.compare(p.snap))
	return nil
}

// explain says why flows are denied.
func (r *runReport) explain(snap *cluster.Snapshot) error {
	reasons, differences, err := r.after.explain(snap, r.faults)
	r.Why, r.Differences = append(r.Why, reasons...), append(r.Differences, differences...)
	return err
}

func applied(ctx context.Context, t *trial.Trial, p *plan, text []byte) (*view, error) {
	s := p.state
	s.Files = map[string][]byte{"cluster.yaml": text}
	if err := t.Apply(ctx, s); err != nil {
		return nil, err
	}
	return askAll(ctx, t, p.ends, p.ports, p.scope)
}

func (r *runReport) finish(differences []string) {
	r.Differences = append(r.Differences, differences...)
	for _, s := range r.Services {
		r.Differences = append(r.Differences, s.wrong...)
	}
	e := exampleView{before: r.before, after: r.after}.report()
	r.Endpoints, r.Probes = append([]string{}, e.Endpoints...), append([]probeReport{}, e.Probes...)
	r.Audited = r.after.auditedFlows()
	r.groups = groupsOf(r.after.ends, len(r.after.ports), r.before, r.after)
	for _, g := range r.groups {
		if len(g) > 1 {
			r.Groups = append(r.Groups, r.namesOf(g))
		}
	}
}

func (r *runReport) namesOf(g group) []string {
	var names []string
	for _, i := range g {
		names = append(names, r.after.ends[i].name)
	}
	return names
}

func (r *run) print(report *runReport) error {
	p := paint(r.streams.Color)
	if r.output == "json" {
		enc := json.NewEncoder(r.streams.Out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(report); err != nil {
			return fmt.Errorf("printing the result: %w", err)
		}
	} else {
		report.print(r.streams.Out, p)
	}
	if len(report.Differences) > 0 {
		return exit{statusDiffers}
	}
	return writtenStatus(report.asWritten)
}

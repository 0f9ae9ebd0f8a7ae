// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/source/manifest"
)

type run struct {
	bedFlags
	streams       Streams
	manifests     *manifestFlags
	wiring        string
	output        string
	probes, hosts []string
	ruleset       bool
}

func newRun(s Streams) *cobra.Command {
	r := &run{streams: s, manifests: &manifestFlags{in: s.In}}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Show who reaches whom under your own manifests",
		Long: `run puts the Pods of your manifests into the lab, runs podwall-agent on them, and
shows who reaches whom with your NetworkPolicies, and what they changed.

✓ arrived   ✗ dropped   4 only IPv4 arrived   [ ] changed by the policies

Pods without a node or an address get them. Of a Deployment, StatefulSet,
ReplicaSet, Job or CronJob two pods are made at most, of a DaemonSet one for each
node. Services with a selector work. Hosts
outside are chosen so that every CIDR block of your policies has one; --host
names others. Ports are those of the containers and of the policies, or --probe.
Every verdict is compared with the text of the policies; a difference is
reported and the exit status is 1. It is 3 where an object could not be read, or
a policy is not enforced as it is written: stderr and -o json say which.`,
		Example: `  podwall-lab run -f ./manifests
  podwall-lab run -f app.yaml --wiring bridge --probe tcp:80,udp:53
  podwall-lab run -f ./manifests --host 192.0.2.7 --ruleset
  podwall-lab run -R -f ./deploy -f extra-policy.yaml
  kubectl get ns,pods,netpol,svc -A -o yaml | podwall-lab run -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return r.run(cmd.Context()) },
	}
	r.bind(cmd)
	r.manifests.bind(cmd)
	f := cmd.Flags()
	f.StringVarP(&r.output, "output", "o", "text", "form of the answer: `text|json`")
	f.StringVar(&r.wiring, "wiring", "routed", "how pods are wired: one `NAME` of "+wiringNames())
	f.StringSliceVar(&r.probes, "probe", nil, "`PORTS` to try instead of those in the manifests, as in tcp:80,udp:53")
	f.StringSliceVar(&r.hosts, "host", nil, "`ADDRS` of hosts outside, instead of chosen ones")
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
	// Differences are verdicts that are not what the policies say.
	Differences []string `json:"differences"`
	// Invented says which pods were made of workloads.
	Invented []string `json:"invented"`
	// Diagnostics are what is to be said about the manifests.
	Diagnostics []cluster.Diagnostic `json:"diagnostics"`

	before, after *view
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
	if err := r.ready(wirings); err != nil {
		return err
	}
	from, err := r.manifests.read()
	if err != nil {
		return err
	}
	loaded, err := loadManifests(from, r.streams, ofWorkload)
	if err != nil {
		return err
	}
	in, err := readInput(from)
	if err != nil {
		return err
	}
	for _, text := range in.invented {
		fmt.Fprintln(r.streams.Err, logging.Plain(text))
	}
	t, err := r.start(ctx, wirings[0], in.nodes)
	if err != nil {
		return err
	}
	report, err := r.measure(ctx, t, in, ports, hosts)
	if closeErr := t.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	report.Invented = append(report.Invented, in.invented...)
	report.asWritten, report.Diagnostics = loaded.AsWritten(), append(report.Diagnostics, loaded.Diagnostics...)
	return r.print(report)
}

// measure brings the lab to the manifests, without and with their policies.
func (r *run) measure(ctx context.Context, t *trial.Trial, in *input, ports []port, hosts []trial.Host) (*runReport, error) {
	in.place(func(node string) []netip.Addr { return t.Bed().Node(node).Addrs })
	bare, err := in.render(false)
	if err != nil {
		return nil, err
	}
	full, err := in.render(true)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse("cluster.yaml", full)
	if err != nil {
		return nil, fmt.Errorf("reading the manifests again: %w", err)
	}
	if len(ports) == 0 {
		ports = choosePorts(in.pods, m.Policies)
	}
	if r.ruleset {
		r.printRulesets(m, in.nodes)
	}
	return r.compare(ctx, t, m, bare, full, ports, hosts)
}

func (r *run) printRulesets(m *manifest.Result, nodes []string) {
	for _, node := range nodes {
		fmt.Fprintf(r.streams.Out, "# node %s\n%s\n", node, rulesetOf(m.Snapshot(), node, r.datapath, false))
	}
}

// compare measures without and with the policies, and what Services make of it.
func (r *run) compare(ctx context.Context, t *trial.Trial, m *manifest.Result, bare, full []byte, ports []port, hosts []trial.Host) (_ *runReport, err error) {
	state := stateOf(m, hosts)
	services := fronts(m.Services, m.Pods)
	for _, f := range services {
		state.Services = append(state.Services, f.Service)
	}
	ends := endsOf(m.Pods, state.Hosts)
	report := &runReport{Schema: runSchema, Wiring: r.wiring, Datapath: r.datapath, Services: []serviceView{}, Differences: []string{},
		Invented: []string{}, Diagnostics: []cluster.Diagnostic{}}
	if report.before, err = applied(ctx, t, state, bare, ends, ports); err != nil {
		return nil, err
	}
	if report.after, err = applied(ctx, t, state, full, ends, ports); err != nil {
		return nil, err
	}
	views, err := measureServices(ctx, t, services, ends, m.Snapshot())
	if err != nil {
		return nil, err
	}
	report.Services = append(report.Services, views...)
	report.finish(report.after.compare(m.Snapshot()))
	return report, nil
}

// stateOf returns the wires that the manifests need.
func stateOf(m *manifest.Result, hosts []trial.Host) trial.State {
	s := trial.State{Hosts: hosts}
	for _, p := range m.Pods {
		if p.Networked() {
			s.Pods = append(s.Pods, lab.PodSpec{Key: p.Key, Node: p.Node, IPs: p.IPs})
		}
	}
	if len(hosts) == 0 {
		s.Hosts = chooseHosts(m.Policies, func(a netip.Addr) bool {
			return slices.ContainsFunc(s.Pods, func(p lab.PodSpec) bool { return slices.Contains(p.IPs, a) })
		})
	}
	return s
}

func applied(ctx context.Context, t *trial.Trial, s trial.State, text []byte, ends []end, ports []port) (*view, error) {
	s.Files = map[string][]byte{"cluster.yaml": text}
	if err := t.Apply(ctx, s); err != nil {
		return nil, err
	}
	return askAll(ctx, t, ends, ports)
}

func (r *runReport) finish(differences []string) {
	r.Differences = append(r.Differences, differences...)
	for _, s := range r.Services {
		r.Differences = append(r.Differences, s.wrong...)
	}
	e := exampleView{before: r.before, after: r.after}.report()
	r.Endpoints, r.Probes = e.Endpoints, e.Probes
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

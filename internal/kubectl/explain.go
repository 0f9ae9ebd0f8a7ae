// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/explain"
)

// explainSchema names the form of the JSON of explain and can.
const explainSchema = "podwall.explain/v1"

type explainCommand struct {
	source *source
	output output
	probe  bool
	lab    string
	live   liveProbe
}

func newExplain(s Streams) *cobra.Command {
	return (&explainCommand{source: newSource(s)}).command()
}

func (e *explainCommand) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain POD | svc/NAME | SRC DST[:PORT]",
		Short: "Say why a flow is allowed or denied, or what applies to a pod",
		Long: `explain with one name says which policies isolate a pod, what they allow, and why
the others of its namespace do not select it; or of a Service what podwall's
service proxy does with it on each node: where it is served, to which endpoints
connections go and who they come from there, what is rejected or dropped, and
which addresses are not served and why.

With two it says whether the first packet of a connection passes, by which
policies each side is isolated, and which rule allows it; or, for a denied one,
which rule comes nearest, which field of it is not met, and one change that
would allow it. Answers to a connection that passed pass too.

` + endHelp + `

` + portHelp + `

Through a Service every pod behind it is asked about.

With --probe the packet is also sent, and a verdict that differs from the
explanation is an error. With -f podwall-lab sends it between namespaces of this
machine, on the kernel. On a cluster a container in the source pod does, on each
path: to each pod, and to the address of the Service. That changes the pod: the
ephemeral container podwall-probe-NAME stays in its spec until the pod ends. So it
needs --ephemeral, and the right to get pods and to patch
pods/ephemeralcontainers. A connection, or one that is refused, says that the
packet arrived, no answer to TCP or SCTP that it was dropped; no answer to UDP
says nothing.

Exit status: 0 explained; 1 the packet of --probe says something else; 3 what
became of it is not known, or ` + strings.TrimPrefix(statusHelp, "3 "),
		Example: `  kubectl podwall explain -n shop web-0
  kubectl podwall explain -n shop svc/web
  kubectl podwall explain -n shop client web:8080
  kubectl podwall explain -n shop outside web:http
  kubectl podwall explain prod/api svc/shop/web
  kubectl podwall explain -n shop kubelet web:8080
  kubectl podwall explain 192.0.2.7 node/node1:30080
  kubectl podwall explain -f ./manifests shop/client shop/web:53/udp --probe
  kubectl podwall explain -n shop client svc/web --probe --ephemeral`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return e.run(cmd.Context(), args) },
	}
	e.source.bind(cmd)
	e.source.bindAgents(cmd)
	e.output.bind(cmd)
	e.live.bind(cmd)
	cmd.ValidArgsFunction = e.source.complete
	cmd.Flags().BoolVar(&e.probe, "probe", false, "also send the packet: with podwall-lab, or on a cluster "+
		"from the source pod (see --ephemeral)")
	cmd.Flags().StringVar(&e.lab, "lab", "",
		"podwall-lab `PROGRAM` of --probe; by default the one next to this program, else the one in PATH")
	return cmd
}

// flowReport is the answer to a question about a flow.
type flowReport struct {
	Schema  string `json:"schema"`
	Allowed bool   `json:"allowed"`
	// Answers are several for a Service, and where IPv4 and IPv6 differ.
	Answers []answer `json:"answers"`
	Probe   *probe   `json:"probe,omitempty"`
}

// podReport is the answer to a question about pods.
type podReport struct {
	Schema string               `json:"schema"`
	Pods   []*explain.Isolation `json:"pods"`
}

func (e *explainCommand) run(ctx context.Context, args []string) error {
	if err := e.output.check(); err != nil {
		return err
	}
	if err := e.check(args); err != nil {
		return err
	}
	sc, err := e.source.open(ctx)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		return e.one(ctx, sc, args[0])
	}
	report, err := e.flow(ctx, sc, args[0], args[1])
	if err != nil {
		return err
	}
	if err := e.output.print(e.source.streams, report.String(), report); err != nil {
		return err
	}
	err = sc.status(report.Probe != nil && report.Probe.Differs)
	if err == nil && report.Probe.unknown() {
		return exit{statusNotWritten}
	}
	return err
}

// flow explains a flow, and has packets sent if that is asked for.
func (e *explainCommand) flow(ctx context.Context, sc *scene, src, dst string) (*flowReport, error) {
	ways, err := sc.ways(ctx, src, dst, 0)
	if err != nil {
		return nil, err
	}
	answers, err := sc.each(ctx, ways)
	if err != nil {
		return nil, err
	}
	report := flowReportOf(merged(answers))
	switch {
	case e.probe && e.source.files():
		report.Probe, err = e.send(ctx, sc, report.Answers)
	case e.probe:
		report.Probe, err = e.sendLive(ctx, sc, answers)
	}
	return report, err
}

// report asks about a flow. It is allowed if every path is.
func (sc *scene) report(ctx context.Context, src, dst string) (*flowReport, error) {
	answers, err := sc.ask(ctx, src, dst)
	if err != nil {
		return nil, err
	}
	return flowReportOf(answers), nil
}

func flowReportOf(answers []answer) *flowReport {
	r := &flowReport{Schema: explainSchema, Allowed: true, Answers: answers}
	for _, a := range answers {
		r.Allowed = r.Allowed && a.Allowed
	}
	return r
}

// maxAnswers is how many answers are shown as text.
const maxAnswers = 20

// String returns the report for people.
func (r *flowReport) String() string {
	var b strings.Builder
	via := ""
	for i, a := range r.Answers {
		if i > 0 {
			b.WriteString("\n")
		}
		if a.Via != "" && a.Via != via {
			fmt.Fprintf(&b, "%s leads to:\n\n", a.Via)
			via = a.Via
		}
		if i == maxAnswers {
			fmt.Fprintf(&b, "and %d more: take -o json\n", len(r.Answers)-i)
			break
		}
		b.WriteString(a.explanation.String())
		if both := slices.ContainsFunc(r.Answers, func(o answer) bool {
			return !slices.Equal(o.Families,
				a.Families)
		}); both {
			fmt.Fprintf(&b, "  for %s\n", strings.Join(a.Families, " and "))
		}
	}
	if r.Probe != nil {
		b.WriteString("\n" + r.Probe.String() + "\n")
	}
	return b.String()
}

// one explains what is named alone: a Service or pods.
func (e *explainCommand) one(ctx context.Context, sc *scene, name string) error {
	t, err := sc.target(name)
	if err != nil {
		return err
	}
	kind, key := sc.parseName(name)
	if kind != "svc" {
		return e.pod(sc, t)
	}
	report, err := sc.accounts(ctx, key)
	if err != nil {
		return err
	}
	if err := e.output.print(e.source.streams, report.String(), report); err != nil {
		return err
	}
	return sc.status(false)
}

func (e *explainCommand) pod(sc *scene, t target) error {
	if len(t.pods) == 0 {
		return fmt.Errorf("%s is no pod; name a destination too, as in explain %s shop/web:80", t.name, t.name)
	}
	report := podReport{Schema: explainSchema}
	text := ""
	for _, p := range t.pods {
		i, err := sc.answers.Isolation(p.Key)
		if err != nil {
			return err
		}
		report.Pods = append(report.Pods, i)
		text += i.String()
	}
	if err := e.output.print(e.source.streams, text, report); err != nil {
		return err
	}
	return sc.status(false)
}

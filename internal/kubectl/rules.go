// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/logging"
)

// rulesSchema names the form of the JSON of rules.
const rulesSchema = "podwall.rules/v1"

type rulesCommand struct {
	source *source
	output output
}

func newRules(s Streams) *cobra.Command {
	r := &rulesCommand{source: newSource(s)}
	cmd := &cobra.Command{
		Use:   "rules POD",
		Short: "Show the nftables rules that judge a pod",
		Long: `rules shows the part of a node's nftables table that judges one pod, in the
language of nft: the elements of the maps that lead from its addresses to its
chains, these chains, and the sets they use, of which it shows sixteen elements.
Then it names all sets of the node's table that have the pod's own addresses, as
those of a peer of other pods.

It is what the agent loads with its default flags, worked out from the objects; it
does not read the node. podwall-lab ruleset prints the whole table. Both know the
language of nft on Linux only.

POD is [NAMESPACE/]NAME of a pod or of a workload, one pod of which stands for
all. The form of -o json is ` + rulesSchema + `.

Exit status: 0 shown; ` + statusHelp,
		Example: `  kubectl podwall rules -n shop web-0
  kubectl podwall rules -f ./manifests shop/web`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args[0]) },
	}
	r.source.bind(cmd)
	r.output.bind(cmd)
	cmd.ValidArgsFunction = r.source.complete
	return cmd
}

// rulesReport is the answer of rules.
type rulesReport struct {
	Schema    string       `json:"schema"`
	Pod       cluster.Key  `json:"pod"`
	Node      string       `json:"node"`
	Addresses []netip.Addr `json:"addresses"`
	// Isolated is false if no chain judges the pod.
	Isolated bool   `json:"isolated"`
	Table    string `json:"table"`
	// MemberOf are the sets of the node that the pod's addresses are in.
	MemberOf []string `json:"memberOf"`
}

func (r *rulesCommand) run(ctx context.Context, name string) error {
	if err := r.output.check(); err != nil {
		return err
	}
	sc, err := r.source.open(ctx)
	if err != nil {
		return err
	}
	t, err := sc.target(name)
	if err != nil {
		return err
	}
	if len(t.pods) == 0 {
		return fmt.Errorf("%s is not a pod; rules are shown for pods", t.name)
	}
	pod := t.pods[0]
	if !pod.Networked() || pod.Node == "" {
		return fmt.Errorf("pod %s has no network of its own, or none yet: no rule judges it", pod.Key)
	}
	report := rulesReport{Schema: rulesSchema, Pod: pod.Key, Node: pod.Node, Addresses: pod.IPs}
	if err := report.render(sc, pod); err != nil {
		return err
	}
	if r.output.form == "text" { // rules are not broken into lines of a terminal's width
		for line := range strings.Lines(report.String()) {
			fmt.Fprintln(r.source.streams.Out, logging.Plain(strings.TrimSuffix(line, "\n")))
		}
		return sc.status(false)
	}
	if err := r.output.print(r.source.streams, "", report); err != nil {
		return err
	}
	return sc.status(false)
}

// String returns the rules for people.
func (r rulesReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %s", r.Pod, r.Node)
	for _, a := range r.Addresses {
		fmt.Fprintf(&b, ", %s", a)
	}
	b.WriteString("\n")
	if r.Isolated {
		b.WriteString(strings.ReplaceAll(r.Table, "\t", "  "))
	} else {
		b.WriteString("No chain judges it: no policy isolates it.\n")
	}
	if len(r.MemberOf) > 0 {
		fmt.Fprintf(&b, "Its addresses are in the sets %s.\n", strings.Join(r.MemberOf, ", "))
	}
	return b.String()
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/source/manifest"
)

func newRuleset(s Streams) *cobra.Command {
	var node, datapath string
	from := &manifestFlags{in: s.In}
	var bridge bool
	cmd := &cobra.Command{
		Use:   "ruleset",
		Short: "Print the nftables rules that a node would load",
		Long: `ruleset prints the table that the agent of one node would load for a directory
of manifests, in the language of nft. It needs no rights and changes nothing.

It is what the agent loads with its default flags, but for what it finds out on
the node itself: the sets of interfaces are empty, and the guard against invalid
packets is on. Where a bridge carries pods the agent also loads a chain at
prerouting and the small table of family bridge: --bridge prints both.

The exit status is 3 where an object could not be read, or a policy is not
enforced as it is written; stderr says which.`,
		Example: `  podwall-lab ruleset -f ./manifests --node node1
  podwall-lab ruleset -f ./manifests --node node1 --datapath filter`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if datapath != "nat" && datapath != "filter" {
				return fmt.Errorf("unknown datapath %q, want nat or filter", datapath)
			}
			read, err := from.read()
			if err != nil {
				return err
			}
			r, err := loadManifests(read, s, nil)
			if err != nil {
				return err
			}
			nodes := nodesOf(r.Pods)
			switch {
			case node == "":
				return fmt.Errorf("no --node given; the pods are on %s", cmp.Or(strings.Join(nodes, ", "), "no node"))
			case !slices.Contains(nodes, node):
				fmt.Fprintf(s.Err, "no pod is on node %s; the pods are on %s\n",
					logging.Plain(node), logging.Plain(cmp.Or(strings.Join(nodes, ", "), "no node")))
			}
			if _, err := fmt.Fprint(s.Out, rulesetOf(r.Snapshot(), node, datapath, bridge)); err != nil {
				return err
			}
			return writtenStatus(r.AsWritten())
		},
	}
	from.bind(cmd)
	cmd.Flags().StringVar(&node, "node", "", "`NAME` of the node, as pods have it in spec.nodeName")
	cmd.Flags().BoolVar(&bridge, "bridge", false, "print what a node loads whose bridges carry pods")
	cmd.Flags().StringVar(&datapath, "datapath", "nat", "where the agent judges packets: `nat|filter`")
	return cmd
}

// rulesetOf renders what the agent of a node loads with the default flags, but for what it
// learns from its interfaces. bridge says that the node has a bridge that carries pods.
func rulesetOf(snap *cluster.Snapshot, node, datapath string, bridge bool) string {
	p, w := compileFor(snap, node), decide.Wiring{}
	if bridge {
		w.AnyBridge, w.Bridges = true, []inet.Path{{Link: "cni0", Index: 1, Bridge: true}}
	}
	n := decide.New(decide.Options{FilterHook: datapath == "filter"}).Wire(p, p, w).Node
	text := ruleset.Render(p, n).String()
	if table := ruleset.RenderBridge(n); table != nil {
		text += table.String()
	}
	return text
}

// loadManifests reads manifests and prints what is to be said about them, but for what
// is of no interest; nil is nothing.
func loadManifests(from manifest.From, s Streams, idle func(cluster.Diagnostic) bool) (*manifest.Result, error) {
	r, err := manifest.Load(from)
	if err != nil {
		return nil, err
	}
	if idle != nil {
		r.Diagnostics = slices.DeleteFunc(r.Diagnostics, idle)
	}
	for _, d := range r.Diagnostics {
		fmt.Fprintln(s.Err, logging.Plain(d.String()))
	}
	return r, nil
}

// writtenStatus is the exit status of a command that did what the manifests say
// as far as they could be read.
func writtenStatus(asWritten bool) error {
	if asWritten {
		return nil
	}
	return exit{statusNotWritten}
}

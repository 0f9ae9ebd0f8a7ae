// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	proxyrules "github.com/podwall/podwall/internal/proxy/ruleset"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/source/manifest"
)

type rulesetCommand struct {
	streams        Streams
	from           *manifestFlags
	extra          extraFlags
	node, datapath string
	bridge         bool
	services       bool
}

func newRuleset(s Streams) *cobra.Command {
	r := &rulesetCommand{streams: s, from: &manifestFlags{in: s.In}}
	cmd := &cobra.Command{
		Use:   "ruleset -f PATH --node NAME",
		Short: "Print the nftables rules that a node would load",
		Long: `ruleset prints the table that the agent of one node would load for a directory
of manifests, in the language of nft. It needs no rights and changes nothing.

It is what the agent loads with its default flags, but for what it finds out on
the node itself: the sets of interfaces are empty, and the guard against invalid
packets is on. Where a bridge carries pods the agent also loads a chain at
prerouting and the small table of family bridge: --bridge prints both. With
--services the tables are printed, too, that an agent loads with
--run-service-proxy.

The exit status is 3 where an object could not be read, or a policy is not
enforced as it is written; stderr says which.`,
		Example: `  podwall-lab ruleset -f ./manifests --node node1
  podwall-lab ruleset -f ./manifests --node node1 --datapath filter`,
		Args: command.NoArgs,
		RunE: func(*cobra.Command, []string) error { return r.run() },
	}
	r.from.bind(cmd)
	r.extra.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&r.node, "node", "", "`NAME` of the node, as pods have it in spec.nodeName")
	f.BoolVar(&r.bridge, "bridge", false, "print what a node loads whose bridges carry pods")
	f.BoolVar(&r.services, "services", false, "print the tables of Services, too")
	f.StringVar(&r.datapath, "datapath", "nat", "where the agent judges packets: `nat|filter`")
	return cmd
}

func (r *rulesetCommand) run() error {
	if r.datapath != "nat" && r.datapath != "filter" {
		return fmt.Errorf("unknown datapath %q, want nat or filter", r.datapath)
	}
	if err := r.extra.parse(); err != nil {
		return err
	}
	from, err := r.from.read()
	if err != nil {
		return err
	}
	loaded, err := loadManifests(from, r.streams, nil)
	if err != nil {
		return err
	}
	nodes := cmp.Or(strings.Join(nodesOf(loaded.Pods), ", "), "no node")
	switch {
	case r.node == "":
		return fmt.Errorf("no --node given; the pods are on %s", nodes)
	case !slices.Contains(nodesOf(loaded.Pods), r.node):
		fmt.Fprintf(r.streams.Err, "no pod is on node %s; the pods are on %s\n", logging.Plain(r.node),
			logging.Plain(nodes))
	}
	snap, found := complete.Settle(loaded, clusterNodes(loaded), r.extra.allowance())
	tell(r.streams, found)
	text := rulesetOf(snap, r.node, r.datapath, r.bridge)
	if r.services {
		tables, findings := serviceTables(loaded, r.node)
		tell(r.streams, findings)
		text, found = text+tables, append(found, findings...)
	}
	if _, err := fmt.Fprint(r.streams.Out, text); err != nil {
		return err
	}
	return writtenStatus(loaded.AsWritten() && !hasErrors(found))
}

// clusterNodes returns the nodes as the cluster has them.
func clusterNodes(m *manifest.Result) []*cluster.Node {
	var list []*cluster.Node
	for _, n := range m.Nodes {
		list = append(list, convert.Node(n))
	}
	return list
}

// rulesetOf renders what the agent of a node loads with the default flags, but for what it
// learns from its interfaces. bridge says that the node has a bridge that carries pods.
func rulesetOf(snap *cluster.Snapshot, node, datapath string, bridge bool) string {
	p, w := compileFor(snap, node), decide.Wiring{}
	if bridge {
		w.AnyBridge, w.Bridges = true, []inet.Path{{Link: lab.BridgeName, Index: 1, Bridge: true}}
	}
	n := decide.New(decide.Options{FilterHook: datapath == "filter"}).Wire(p, p, w).Node
	text := ruleset.Render(p, n).String()
	if table := ruleset.RenderBridge(n); table != nil {
		text += table.String()
	}
	return text
}

// serviceTables renders the tables of Services that the agent of a node loads with the default flags.
func serviceTables(m *manifest.Result, node string) (text string, found []cluster.Diagnostic) {
	snap, found := m.Served()
	var own *cluster.Node
	var addrs []netip.Addr
	for _, n := range clusterNodes(m) {
		if n.Name == node {
			own, addrs = n, n.Addrs
		}
	}
	model, findings := service.Resolve(snap, service.Settings{Node: node, Strict: true}.On(own, addrs, false))
	for _, f := range inet.Families {
		text += proxyrules.Render(model.Program(f), proxyrules.Settings{}).String()
	}
	return text, append(found, findings...)
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
	tell(s, r.Diagnostics)
	return r, nil
}

// tell prints findings, a line for each.
func tell(s Streams, list []cluster.Diagnostic) {
	for _, d := range list {
		fmt.Fprintln(s.Err, logging.Plain(d.String()))
	}
}

func hasErrors(list []cluster.Diagnostic) bool {
	return slices.ContainsFunc(list, func(d cluster.Diagnostic) bool { return d.Severity == cluster.Error })
}

// writtenStatus is the exit status of a command that did what the manifests say
// as far as they could be read.
func writtenStatus(asWritten bool) error {
	if asWritten {
		return nil
	}
	return exit{statusNotWritten}
}

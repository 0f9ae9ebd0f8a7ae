// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/command"
	"github.com/podwall/podwall/internal/explain/matrix"
)

type matrixCommand struct {
	source       *source
	output       output
	by           string
	ports, hosts []string
}

func newMatrix(s Streams) *cobra.Command {
	m := &matrixCommand{source: newSource(s)}
	cmd := &cobra.Command{
		Use:   "matrix",
		Short: "Show who reaches whom",
		Long: `matrix shows, for every pair of workloads (or namespaces, or pods) and of hosts
outside, which flows between them are allowed, on each port. Ports with the same
matrix are shown once.

Without --port these are the ports that containers declare and policies name,
twelve at most; without --host the hosts are one of each family, and one in each
block that a policy names, eight at most. With -n only pods of that namespace are
shown, and hosts. Nodes are not shown: a node always reaches its own pods; ask
explain about others.

-o html writes one page that needs nothing else, without scripts. The form of
-o json is ` + matrix.Schema + `.

Exit status: 0 shown, whatever is allowed; ` + statusHelp,
		Example: `  kubectl podwall matrix
  kubectl podwall matrix -n shop --by pod --port tcp:8080,53/udp
  kubectl podwall matrix -f ./manifests --host 203.0.113.10 -o html > page.html`,
		Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return m.run(cmd.Context()) },
	}
	m.source.bind(cmd)
	m.output.bind(cmd)
	f := cmd.Flags()
	f.Lookup("output").Usage = "form of the answer: `text|json|yaml|html`"
	f.StringVar(&m.by, "by", "workload", "what a row and a column is: `namespace|workload|pod`")
	f.StringSliceVar(&m.ports, "port", nil,
		"`PORTS` that are asked about, as in tcp:80, 53/udp or icmp; may be given again")
	f.StringSliceVar(&m.hosts, "host", nil, "`ADDRESSES` outside that are asked about; may be given again")
	return cmd
}

func (m *matrixCommand) run(ctx context.Context) error {
	by := matrix.By(m.by)
	if by != matrix.ByNamespace && by != matrix.ByWorkload && by != matrix.ByPod {
		return fmt.Errorf("unknown --by %q, want namespace, workload or pod", m.by)
	}
	if err := m.output.check(); err != nil && m.output.form != "html" {
		return fmt.Errorf("unknown output %q, want text, json, yaml or html", m.output.form)
	}
	ports, err := parsePortFlags(m.ports)
	if err != nil {
		return err
	}
	sc, err := m.source.open(ctx)
	if err != nil {
		return err
	}
	o := matrix.Options{By: by, Workload: sc.workload, Ports: ports}
	if o.Hosts, err = sc.parseHosts(m.hosts); err != nil {
		return err
	}
	if o.Only, err = sc.only(*m.source.cluster.Namespace); err != nil {
		return err
	}
	if len(m.hosts) == 0 {
		o.Hosts = usualHosts(sc)
	}
	if len(ports) == 0 {
		left := 0
		if o.Ports, left = sc.usualPorts(); left > 0 {
			m.source.say(fmt.Sprintf("%d more ports are declared or named: show them with --port", left))
		}
	}
	return m.show(sc, o)
}

func (m *matrixCommand) show(sc *scene, o matrix.Options) error {
	table, err := matrix.Build(sc.snap, sc.answers, o)
	if err != nil {
		return err
	}
	if m.output.form == "html" {
		var b strings.Builder
		if err := table.WriteHTML(&b); err != nil {
			return err
		}
		if _, err := m.source.streams.Out.Write([]byte(withoutControls(b.String()))); err != nil {
			return fmt.Errorf("printing the answer: %w", err)
		}
		return sc.status(false)
	}
	if err := m.output.print(m.source.streams, table.String(), table); err != nil {
		return err
	}
	return sc.status(false)
}

// withoutControls takes out characters that a terminal obeys: a page may end up on one.
func withoutControls(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, text)
}

// only selects pods of a namespace; nil, which selects all, for none.
func (sc *scene) only(namespace string) (func(cluster.Key) bool, error) {
	if namespace == "" {
		return nil, nil
	}
	var names []string
	for _, p := range sc.snap.Pods {
		if p.Key.Namespace == namespace {
			return func(k cluster.Key) bool { return k.Namespace == namespace }, nil
		}
		names = append(names, p.Key.Namespace)
	}
	return nil, fmt.Errorf("no pod is in namespace %q%s", namespace, nearest(namespace, names))
}

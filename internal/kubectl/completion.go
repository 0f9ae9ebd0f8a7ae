// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// complete proposes names of pods, workloads, Services and nodes to the shell.
func (s *source) complete(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) >= 2 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	quiet := *s
	quiet.streams.Err = io.Discard
	sc, err := quiet.open(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []cobra.Completion
	for _, name := range sc.names() {
		if strings.HasPrefix(name, begun) {
			list = append(list, name)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// names are references to all ends, those of the own namespace without it.
func (sc *scene) names() []string {
	list := []string{outside, kubelet}
	add := func(kind, namespace, name string) {
		if list = append(list, kind+namespace+"/"+name); namespace == sc.namespace {
			list = append(list, kind+name)
		}
	}
	for _, p := range sc.snap.Pods {
		if add("", p.Key.Namespace, p.Key.Name); sc.workload[p.Key] != "" {
			add("", p.Key.Namespace, sc.workload[p.Key])
		}
	}
	for _, f := range sc.fronts {
		namespace, name, _ := strings.Cut(f.Name, "/")
		add("svc/", namespace, name)
	}
	for _, n := range sc.nodes {
		list = append(list, "node/"+n.Name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

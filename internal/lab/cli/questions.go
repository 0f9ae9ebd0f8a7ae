// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/netpol/lint"
)

// questions are warnings about policies that mean something and were probably not meant.
func questions(in *complete.Input, snap *cluster.Snapshot) []cluster.Diagnostic {
	real := *snap
	// A namespace that nothing but a policy names is there for the reader of manifests.
	real.Namespaces = slices.DeleteFunc(slices.Clone(snap.Namespaces), func(n *cluster.Namespace) bool {
		inside := func(p *cluster.Pod) bool { return p.Key.Namespace == n.Name }
		return !in.Namespaces[n.Name] && !slices.ContainsFunc(snap.Pods, inside)
	})
	var list []cluster.Diagnostic
	for _, f := range lint.Check(&real) {
		list = append(list, f.Diagnostic)
	}
	return list
}

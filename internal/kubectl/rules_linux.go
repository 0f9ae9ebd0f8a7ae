// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// render renders what the agent of the pod's node loads, and takes the pod's part of it.
func (r *rulesReport) render(sc *scene, pod *cluster.Pod) error {
	p := compile.Program(policy.Resolve(sc.snap, pod.Node), compile.Options{})
	part := ruleset.OfPod(ruleset.Render(p, program.Node{}), pod.IPs)
	r.Isolated, r.Table, r.MemberOf = len(part.Table.Chains) > 0, part.Table.String(), part.MemberOf
	return nil
}

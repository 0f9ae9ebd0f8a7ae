// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A Judge that was asked anything before answers as Eval does.
func TestAJudgeAnswersAsEvalDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		all := append(ends(snap), linkLocalEnds()...)
		asked := rapid.SliceOfN(rapid.SampledFrom(probes()), 6, 6).Draw(t, "probes")
		for node, p := range programs(snap) {
			j := program.NewJudge(p)
			for range 2 { // the second time from memory
				for _, src := range all {
					for _, dst := range all {
						for _, f := range asked {
							f.Src, f.Dst = src.addr, dst.addr
							f.FromNode, f.ToNode = src.node == node, dst.node == node
							f.SrcElsewhere, f.DstElsewhere = src.elsewhere, dst.elsewhere
							want := program.Eval(p, f) == program.Accept
							if got := j.Allows(program.Egress, f) && j.Allows(program.Ingress, f); got != want {
								t.Fatalf("%+v: the judge allows: %t, Eval: %t\n%s%s", f, got, want, gen.Describe(snap), p)
							}
						}
					}
				}
			}
		}
	})
}

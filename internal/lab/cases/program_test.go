// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"path/filepath"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

func TestProgramAgreesWithEveryCase(t *testing.T) {
	b := cases.NewProgramBackend(func(snap *cluster.Snapshot, node string) *program.Program {
		return compile.Program(policy.Resolve(snap, node), compile.Options{})
	}, func(p *program.Program, f program.Flow) bool { return program.Eval(p, f) == program.Accept })
	for _, file := range files(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			agrees(t, read(t, file), b)
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"path/filepath"
	"testing"

	"github.com/podwall/podwall/internal/cases"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/compile"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
)

func TestProgramAgreesWithEveryCase(t *testing.T) {
	b := cases.NewProgramBackend(func(snap *cluster.Snapshot, node string) *filter.Program {
		return compile.Program(policy.Resolve(snap, node), compile.Options{})
	}, func(p *filter.Program, f filter.Flow) bool { return filter.Eval(p, f) == filter.Accept })
	for _, file := range files(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			agrees(t, read(t, file), b)
		})
	}
}

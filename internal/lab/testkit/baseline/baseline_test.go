// SPDX-License-Identifier: Apache-2.0

package baseline

import (
	"strings"
	"testing"
)

func TestGrowthIsAProblemAndWhatIsWithinTheMarginIsNot(t *testing.T) {
	for _, tt := range []struct{ name, text, problem string }{
		{"the same", "bytes 100\n", ""},
		{"within the margin", "bytes 95\n", ""},
		{"grown", "bytes 90\n", "grew"},
		{"shrunk", "bytes 200\n", "shrank"},
		{"new", "", "no baseline"},
		{"gone", "bytes 100\nmessages 1\n", "not measured"},
		{"damaged", "bytes\nbytes 100\n", "cannot read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			problems := compare(tt.text, map[string]Cost{"bytes": {Count: 100, Margin: 0.1}})
			if got := strings.Join(problems, "; "); (tt.problem == "") != (got == "") || !strings.Contains(got, tt.problem) {
				t.Errorf("problems %q, want one with %q", got, tt.problem)
			}
		})
	}
}

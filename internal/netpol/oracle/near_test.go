// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
)

// The oracle counts requirements as upstream's selectors judge them, one by one.
func TestUnmetRequirementsAreCountedAsUpstreamJudges(t *testing.T) {
	parts := []string{"a=x", "a!=x", "a in (x,y)", "a notin (x,y)", "a", "!a",
		"b=", "b=x", "b!=x", "b in (,x)", "!b", "c", "c in (y)"}
	rapid.Check(t, func(t *rapid.T) {
		s := labels.NewSelector()
		for _, text := range rapid.SliceOfN(rapid.SampledFrom(parts), 0, 4).Draw(t, "selector") {
			one, err := labels.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			r, _ := one.Requirements()
			s = s.Add(r...)
		}
		m := map[string]string{}
		for _, k := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.ID).Draw(t, "keys") {
			m[k] = rapid.SampledFrom([]string{"", "x", "y", "z"}).Draw(t, k)
		}
		want, l := 0, cluster.NewLabels(m)
		requirements, _ := s.Requirements()
		for _, r := range requirements {
			if !r.Matches(l) {
				want++
			}
		}
		if text := cluster.NewSelector(s).Text(); text != "" && unmet(text, l) != want {
			t.Fatalf("%q on %v: %d unmet, want %d", text, m, unmet(text, l), want)
		}
	})
}

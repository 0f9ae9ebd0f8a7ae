// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

const alertsFile = "../../deploy/chart/podwall/files/alerts.yaml"

func TestGoldenAlerts(t *testing.T) {
	var got bytes.Buffer
	if err := Alerts(&got); err != nil {
		t.Fatal(err)
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(alertsFile, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s is old; run go test ./internal/observe -update (-file +now):\n%s", alertsFile, diff)
	}
}

// Rules and dashboard ask for metrics that exist, with the values of labels that they have.
func TestAlertsAndDashboardAskForWhatExists(t *testing.T) {
	b := newBuilder(prometheus.NewRegistry())
	newMetrics(b, "", computedValues{})
	newServiceMetrics(b)
	known := map[string]definition{}
	for _, d := range b.definitions {
		known[d.name] = d
		if d.kind == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				known[d.name+suffix] = d
			}
		}
	}
	asked := regexp.MustCompile(`podwall_[a-z_]+(?:\{([^}]*)\})?`)
	value := regexp.MustCompile(`[!=~]+\\?"([^"\\]*)\\?"`)
	for _, file := range []string{alertsFile, "../../deploy/chart/podwall/files/dashboard.json"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := asked.FindAllStringSubmatch(string(text), -1)
		if len(found) < 10 {
			t.Errorf("%s asks for %d metrics only", file, len(found))
		}
		for _, m := range found {
			name, _, _ := strings.Cut(m[0], "{")
			d, ok := known[name]
			if !ok {
				t.Errorf("%s asks for %s, which does not exist", file, name)
			}
			for _, v := range value.FindAllStringSubmatch(m[1], -1) {
				for word := range strings.SplitSeq(v[1], "|") {
					if word != "manifests" && !strings.HasPrefix(word, "$") && !strings.Contains(d.labels, word) {
						t.Errorf("%s asks %s for %q; its labels are %s", file, name, word, d.labels)
					}
				}
			}
		}
	}
}

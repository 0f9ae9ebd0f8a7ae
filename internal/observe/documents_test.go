// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A rule about a metric that does not exist is never true, and nobody is alerted.
func TestTheMetricsInTheDocumentsExist(t *testing.T) {
	b := newBuilder(prometheus.NewRegistry())
	newMetrics(b, "", computedValues{})
	newServiceMetrics(b)
	known := map[string]bool{}
	for _, d := range b.definitions {
		known[d.name] = true
		if d.kind == "histogram" {
			known[d.name+"_sum"], known[d.name+"_count"], known[d.name+"_bucket"] = true, true, true
		}
	}
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	name, found := regexp.MustCompile(`\bpodwall_[a-z0-9_]+`), 0
	for _, file := range append(files, "../../README.md", "../../CHANGELOG.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, metric := range name.FindAllString(string(text), -1) {
			if found++; !known[metric] && !strings.HasSuffix(metric, "_") { // a beginning of names
				t.Errorf("%s: there is no metric %s", file, metric)
			}
		}
	}
	if found < len(known)/2 {
		t.Errorf("%d names were found, so this test reads nothing", found)
	}
}

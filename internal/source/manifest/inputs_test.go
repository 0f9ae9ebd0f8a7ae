// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden text anew")

// TestInputs reads files that people really have, in small, and compares what is
// read and said with a golden text. Of each file every object is used or named,
// and what a policy in it isolates is isolated, or the whole file is refused.
func TestInputs(t *testing.T) {
	const golden = "testdata/inputs.golden"
	files, err := filepath.Glob("testdata/inputs/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	var b strings.Builder
	for _, file := range files {
		r, err := Load(From{Paths: []string{file}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %s\n", filepath.Base(file), inputSummary(r))
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("inputs (-want +got):\n%s", diff)
	}
}

func inputSummary(r *Result) string {
	var words []string
	for _, p := range r.Pods {
		words = append(words, "pod:"+p.Key.String())
	}
	for _, p := range r.Policies {
		words = append(words, fmt.Sprintf("policy:%s{%s, in %v %d, out %v %d}", p.Key, p.Subject,
			p.IsolatesIngress, len(p.Ingress), p.IsolatesEgress, len(p.Egress)))
	}
	text := strings.Join(words, " ")
	for _, d := range r.Diagnostics {
		text += "\n\t" + d.String()
	}
	return text
}

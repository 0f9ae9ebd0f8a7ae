// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testsOf returns the names of all tests as package.Name.
func testsOf(t *testing.T, dirs ...string) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	name := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, dir := range dirs {
		files, err := filepath.Glob(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range name.FindAllStringSubmatch(string(text), -1) {
				known[filepath.Base(filepath.Dir(file))+"."+m[1]] = true
			}
		}
	}
	return known
}

// docs/design/invariants.md has all, each with a test that exists.
func TestInvariantsPageNamesWhatExists(t *testing.T) {
	page, err := os.ReadFile("../../../docs/design/invariants.md")
	if err != nil {
		t.Fatal(err)
	}
	known := testsOf(t, "../../*/*_test.go", "../../*/*/*_test.go", "../../*/*/*/*_test.go",
		"../../../test/*/*_test.go")
	sections := strings.Split(string(page), "\n## ")[1:]
	if len(sections) < 13 {
		t.Errorf("%d invariants, want 13 at least", len(sections))
	}
	named := regexp.MustCompile("`([a-z]+\\.(?:Test|Fuzz)\\w+)`")
	for i, s := range sections {
		if !strings.HasPrefix(s, fmt.Sprintf("%d. ", i+1)) {
			t.Errorf("section %d begins %.20q", i+1, s)
		}
		names := named.FindAllStringSubmatch(s, -1)
		if len(names) == 0 {
			t.Errorf("invariant %d has no test", i+1)
		}
		for _, m := range names {
			if !known[m[1]] {
				t.Errorf("invariant %d names %s, which does not exist", i+1, m[1])
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSemanticsPageNamesWhatExists checks every case id, table row and test
// that docs/design/semantics.md names, and that it names every peer defect.
func TestSemanticsPageNamesWhatExists(t *testing.T) {
	raw, err := os.ReadFile("../../docs/design/semantics.md")
	if err != nil {
		t.Fatal(err)
	}
	page := strings.Join(strings.Fields(string(raw)), " ")
	ids := map[string]bool{}
	for _, file := range files(t) {
		for _, c := range read(t, file) {
			for _, s := range c.Steps {
				id, _, _ := strings.Cut(s.ID, ".")
				ids[id] = true
			}
		}
	}
	named := map[string]bool{}
	for _, id := range regexp.MustCompile(`\b(cyclonus-\d+|recipe-\w+|peer-[a-z-]+[a-z])\b`).FindAllString(page, -1) {
		named[id] = true
		if !ids[id] {
			t.Errorf("no case has the id %s", id)
		}
	}
	for id := range ids {
		if strings.HasPrefix(id, "peer-") && !named[id] {
			t.Errorf("the page does not name %s", id)
		}
	}
	tests := map[string]string{"oracle": testText(t, "oracle"), "convert": testText(t, "convert")}
	rows := regexp.MustCompile(`\b(oracle|convert) "([^"]+)"`).FindAllStringSubmatch(page, -1)
	if len(rows) < 50 {
		t.Errorf("found only %d named rows", len(rows))
	}
	for _, row := range rows {
		if !strings.Contains(tests[row[1]], `"`+row[2]+`"`) {
			t.Errorf("package %s has no test row %q", row[1], row[2])
		}
	}
	all := tests["oracle"] + tests["convert"] + testText(t, "../test/integration")
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(page, -1) {
		if !strings.Contains(all, "func "+name+"(") {
			t.Errorf("no test is called %s", name)
		}
	}
}

// testText returns the text of a package's tests.
func testText(t *testing.T, pkg string) string {
	t.Helper()
	list, err := filepath.Glob("../" + pkg + "/*_test.go")
	if err != nil || len(list) == 0 {
		t.Fatalf("package %s has no tests, %v", pkg, err)
	}
	var text strings.Builder
	for _, file := range list {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(raw)
	}
	return text.String()
}

// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSemanticsPageNamesWhatExists checks every case id, table row and test
// that docs/design/semantics.md names, and that it names every peer defect.
func TestSemanticsPageNamesWhatExists(t *testing.T) {
	page := readPage(t, "semantics.md")
	namesCases(t, page, "peer-")
	if rows := namesRows(t, page); rows < 50 {
		t.Errorf("found only %d named rows", rows)
	}
	all := testText(t, "../internal/netpol/oracle") + testText(t, "../internal/cluster/convert") +
		testText(t, "integration") + testText(t, "attack") + testText(t, "packets") + testText(t, "cut") + testText(t, "gate") + testText(t, "faults")
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(page, -1) {
		if !strings.Contains(all, "func "+name+"(") {
			t.Errorf("no test is called %s", name)
		}
	}
}

// TestChecklistNamesWhatExists checks the same of docs/design/checklist.md, and
// that every line of the list is there once, with a state and what shows it.
func TestChecklistNamesWhatExists(t *testing.T) {
	page := readPage(t, "checklist.md")
	namesCases(t, page, "check-")
	if rows := namesRows(t, page); rows < 30 {
		t.Errorf("found only %d named rows", rows)
	}
	if tests := namesTests(t, page); tests < 80 {
		t.Errorf("found only %d named tests", tests)
	}
	raw, err := os.ReadFile("../../../docs/design/checklist.md")
	if err != nil {
		t.Fatal(err)
	}
	hasEveryLine(t, string(raw))
}

// hasEveryLine wants each line of the checklist once, in order, with a state
// that is known. A line that is shown names a test, a case or a row.
func hasEveryLine(t *testing.T, page string) {
	t.Helper()
	proof := regexp.MustCompile("`[a-z]+\\.(Test|Fuzz)|(check|peer)-[a-z]|(cyclonus|recipe)-\\d|(oracle|convert) \"")
	found := regexp.MustCompile(`(?m)^\| (C[0-9.]+b?) \|(.*)\|$`).FindAllStringSubmatch(page, -1)
	want := checklist()
	for i := range max(len(found), len(want)) {
		if i >= len(found) || i >= len(want) || found[i][1] != want[i] {
			t.Fatalf("line %d: %d lines, want the %d of the list in their order", i, len(found), len(want))
		}
		cells := strings.Split(found[i][2], "|")
		if len(cells) != 4 {
			t.Errorf("%s has %d cells, want rule, broke in, state, shown by", want[i], len(cells))
			continue
		}
		state, shown := strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])
		switch state {
		case "yes":
			if !proof.MatchString(shown) {
				t.Errorf("%s names nothing that shows it", want[i])
			}
		case "partial", "open", "n/a":
			if !strings.HasSuffix(shown, ".") && !strings.HasSuffix(shown, "`") {
				t.Errorf("%s is %s and does not say what is missing", want[i], state)
			}
		default:
			t.Errorf("%s has the unknown state %q", want[i], state)
		}
	}
}

// checklist returns the numbers of the list. Numbers never change.
func checklist() []string {
	var list []string
	for i, lines := range []int{12, 6, 9, 11, 11, 10, 8, 8, 11, 4, 6} {
		for line := range lines {
			number := fmt.Sprintf("C%d.%d", i+1, line+1)
			list = append(list, number)
			if number == "C3.6" || number == "C9.1" {
				list = append(list, number+"b")
			}
		}
	}
	return list
}

// readPage returns a page of docs/design with all white space made one blank.
func readPage(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile("../../../docs/design/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(raw)), " ")
}

// namesCases wants that all cases that the page names exist, and that it names
// all cases whose ids begin with prefix.
func namesCases(t *testing.T, page, prefix string) {
	t.Helper()
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
	for _, id := range regexp.MustCompile(`\b(cyclonus-\d+|recipe-\w+|(peer|check)-[a-z0-9-]+[a-z0-9])\b`).FindAllString(page, -1) {
		named[id] = true
		if !ids[id] {
			t.Errorf("no case has the id %s", id)
		}
	}
	for id := range ids {
		if strings.HasPrefix(id, prefix) && !named[id] {
			t.Errorf("the page does not name %s", id)
		}
	}
}

// namesRows wants that all rows of test tables that the page names exist, and
// returns how many it names.
func namesRows(t *testing.T, page string) int {
	t.Helper()
	tests := map[string]string{"oracle": testText(t, "../internal/netpol/oracle"), "convert": testText(t, "../internal/cluster/convert")}
	rows := regexp.MustCompile(`\b(oracle|convert) "([^"]+)"`).FindAllStringSubmatch(page, -1)
	for _, row := range rows {
		if !strings.Contains(tests[row[1]], `"`+row[2]+`"`) {
			t.Errorf("package %s has no test row %q", row[1], row[2])
		}
	}
	return len(rows)
}

// namesTests wants that all tests that the page names with their package
// exist, and returns how many it names.
func namesTests(t *testing.T, page string) int {
	t.Helper()
	names := regexp.MustCompile("`([a-z]+)\\.((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(page, -1)
	for _, n := range names {
		text := ""
		for _, above := range []string{"", "../internal/", "../internal/*/", "../internal/*/*/"} { // cut and gate are several
			if found, err := filepath.Glob("../../../test/" + above + n[1] + "/*_test.go"); err == nil && len(found) > 0 {
				text += testText(t, above+n[1])
			}
		}
		if !strings.Contains(text, "func "+n[2]+"(") {
			t.Errorf("package %s has no test %s", n[1], n[2])
		}
	}
	return len(names)
}

// testText returns the text of a package's tests, from the directory test on.
func testText(t *testing.T, dir string) string {
	t.Helper()
	list, err := filepath.Glob("../../../test/" + dir + "/*_test.go")
	if err != nil || len(list) == 0 {
		t.Fatalf("%s has no tests, %v", dir, err)
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

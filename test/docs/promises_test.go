// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promises says what tries each sentence of docs/services.md. A row has the sentence, a tab, and either tests
// (`internal/proxy/stale TestEntriesFromBefore`, with a case behind a slash where one tries it; `; ` between two),
// or `-` and why no test can: it is no promise, or speaks of somebody else's program.
const promises = "testdata/services.tsv"

// Each sentence of the page on Services has been looked at: a test tries what it promises.
func TestEachPromiseOfServicesIsTried(t *testing.T) {
	text, err := os.ReadFile(promises)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(text)) {
		said, tries, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if _, twice := rows[said]; !ok || twice {
			t.Errorf("%s: want a sentence once, a tab and what tries it, not %q", promises, line)
		}
		rows[said] = tries
	}
	said := sentences(read(t, "docs/services.md"))
	if len(said) < 100 {
		t.Errorf("%d sentences are found, want more", len(said))
	}
	for _, s := range said {
		if rows[s] == "" {
			t.Errorf("docs/services.md says: %s\nNo row of test/docs/%s has this sentence.\n"+
				"Add one that names the test which tries it, or `-` and why no test can", s, promises)
		}
	}
	for s := range rows {
		if !slices.Contains(said, s) {
			t.Errorf("test/docs/%s has: %s\ndocs/services.md does not say so any more", promises, s)
		}
	}
}

// What the rows name exists: the test's function in its package, and the case as text beside it.
func TestTestsOfPromisesExist(t *testing.T) {
	for line := range strings.Lines(read(t, "test/docs/"+promises)) {
		_, tries, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if reason, ok := strings.CutPrefix(tries, "- "); ok {
			if len(reason) < 10 {
				t.Errorf("%q: want the reason why no test can", line)
			}
			continue
		}
		for name := range strings.SplitSeq(tries, "; ") {
			if why := missing(t, name); why != "" {
				t.Errorf("%q: %s", name, why)
			}
		}
	}
}

// missing says what of a test's name does not exist.
func missing(t *testing.T, name string) string {
	t.Helper()
	pkg, test, ok := strings.Cut(name, " ")
	test, of, _ := strings.Cut(test, "/")
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	beside, err := filepath.Glob(filepath.Join(root, "testdata/services/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var function, text bool
	for _, f := range append(files, beside...) {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		function = function || strings.Contains(string(data), "\nfunc "+test+"(")
		text = text || strings.Contains(string(data), of)
	}
	switch {
	case !ok || !strings.HasPrefix(test, "Test"):
		return "want a package and a test"
	case !function:
		return "the package has no such test"
	case !text:
		return "neither the package's tests nor testdata/services have this case"
	}
	return ""
}

var (
	fenced = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	item   = regexp.MustCompile(`^(-|\d+\.) `)
	// ends are where a sentence ends. The page has no abbreviations.
	ends = regexp.MustCompile(`[.?!](\*\*)? `)
)

// sentences returns what a page says: the sentences of its paragraphs and items, and the rows of its tables.
func sentences(text string) (list []string) {
	block := ""
	end := func() {
		for rest := block; rest != ""; {
			one := rest
			if at := ends.FindStringIndex(rest); at != nil && rest[0] != '|' {
				one = rest[:at[1]-1]
			}
			list = append(list, one)
			rest = strings.TrimSpace(rest[len(one):])
		}
		block = ""
	}
	for line := range strings.Lines(fenced.ReplaceAllString(text, "")) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "|--"): // the row before is the head of the table
			block = ""
			continue
		case line == "" || line[0] == '#' || line[0] == '|' || item.MatchString(line):
			end()
		}
		if !strings.HasPrefix(line, "#") {
			block = strings.TrimSpace(block + " " + item.ReplaceAllString(line, ""))
		}
	}
	end()
	return list
}

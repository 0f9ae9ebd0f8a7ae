// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The operators' pages.
func pages() []string {
	return []string{"README.md", "docs/install.md", "docs/operate.md", "docs/compatibility.md", "deploy/chart/podwall/README.md"}
}

func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What a page calls tested has a test.
func TestThePagesNameTestsThatExist(t *testing.T) {
	exists := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(data), -1) {
			exists[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, name := range pages() {
		for _, test := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(page(t, name), -1) {
			if named++; !exists[test] {
				t.Errorf("%s names %s, which does not exist", name, test)
			}
		}
	}
	if named < 15 {
		t.Errorf("only %d tests are named", named)
	}
}

// linked are all pages that people read.
func linked(t *testing.T) []string {
	t.Helper()
	list := append(pages(), "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) < 3 {
			t.Fatalf("%s: %d pages, %v", pattern, len(files), err)
		}
		for _, f := range files {
			list = append(list, strings.TrimPrefix(f, "../../"))
		}
	}
	return list
}

// Whoever installed it finds how to take it away.
func TestUninstallingIsLinked(t *testing.T) {
	for _, name := range []string{"docs/install.md", "docs/operate.md"} {
		if !strings.Contains(page(t, name), "](uninstall.md") {
			t.Errorf("%s does not link uninstall.md", name)
		}
	}
}

// The README shows an installation: short, and as wide as a terminal.
func TestTheTranscriptOfTheReadmeFitsATerminal(t *testing.T) {
	_, rest, ok := strings.Cut(page(t, "README.md"), "<!-- transcript -->\n```console\n")
	text, _, ends := strings.Cut(rest, "```\n")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if !ok || !ends || len(lines) < 10 || len(lines) > 30 {
		t.Fatalf("a transcript of %d lines", len(lines))
	}
	for _, line := range lines {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestTheLinksOfThePagesLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	for _, name := range linked(t) {
		for _, m := range link.FindAllStringSubmatch(page(t, name), -1) {
			target := filepath.Join(filepath.Dir(name), m[1])
			if m[1] == "" {
				target = name
			}
			if _, err := os.Stat(filepath.Join("../..", target)); err != nil {
				t.Errorf("%s links %s: %v", name, m[1], err)
			} else if anchor := strings.TrimPrefix(m[2], "#"); anchor != "" && !headings(page(t, target))[anchor] {
				t.Errorf("%s links %s, which has no such heading", name, m[0])
			}
		}
	}
}

// headings are the anchors of a page, as code hosts make them.
func headings(text string) map[string]bool {
	list := map[string]bool{}
	odd := regexp.MustCompile(`[^\pL\pN _-]`)
	for line := range strings.Lines(text) {
		if title := strings.TrimLeft(line, "#"); title != line {
			title = odd.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			list[strings.ReplaceAll(title, " ", "-")] = true
		}
	}
	return list
}

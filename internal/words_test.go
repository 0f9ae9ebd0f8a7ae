// SPDX-License-Identifier: Apache-2.0

package internal_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unwanted are words of CONTRIBUTING's list that no page of users and no text of a program has. The
// others of that list have good uses too, and are for readers to judge.
var unwanted = regexp.MustCompile(`(?i)\b(nobody|somebody|everybody|beside|once more|anew|forged|looked at|` +
	`makes true|seed document)\b`)

// names that others rely on keep such words.
func usedNames() []string {
	return []string{
		"now-beside-kube-bridge", // a value of a flag
		"user: nobody", "{name: nobody,",
	}
}

// wordsKept are texts that keep an unwanted word, as "file: word", each with its reason.
func wordsKept() map[string]string {
	return map[string]string{
		"internal/explain/diff/group.go: everybody":     "the name of a class in the answer of kubectl podwall diff",
		"internal/lab/measure/packets/peer.go: beside":  "the title of published tables",
		"internal/lab/measure/packets/found.go: nobody": "the title of published tables",
	}
}

func unwantedIn(name, text string) (list []string) {
	for _, n := range usedNames() {
		text = strings.ReplaceAll(text, n, "")
	}
	for _, word := range unwanted.FindAllString(text, -1) {
		found := name + ": " + strings.ToLower(word)
		if wordsKept()[found] == "" {
			list = append(list, found)
		}
	}
	return list
}

// unwantedTexts returns the unwanted words of a program's texts.
func unwantedTexts(s source) (list []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if text, ok := n.(*ast.BasicLit); ok && text.Kind == token.STRING {
			for _, found := range unwantedIn(s.name, text.Value) {
				list = append(list, fmt.Sprintf("%s (line %d)", found, s.set.Position(text.Pos()).Line))
			}
		}
		return true
	})
	return list
}

func TestTextsOfProgramsHaveTheWordsOfTheField(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() || strings.Contains(s.name, "/testkit/") || !slices.Contains([]string{"internal", "cmd"},
			strings.Split(s.name, "/")[0]) {
			continue
		}
		for _, found := range unwantedTexts(s) {
			t.Errorf("%s: see the words of CONTRIBUTING.md", found)
		}
	}
}

var (
	codeSpan   = regexp.MustCompile("`[^`\n]+`")
	titleOfADR = regexp.MustCompile(`\[[^\]]*\]\((adr|docs/adr)/[^)]*\)`)
)

// unwantedOn returns the unwanted words of a page. Names in code, and titles of decisions, which
// stay as they were written, do not count.
func unwantedOn(name, text string) []string {
	return unwantedIn(name, titleOfADR.ReplaceAllString(codeSpan.ReplaceAllString(text, ""), ""))
}

func TestPagesOfUsersHaveTheWordsOfTheField(t *testing.T) {
	names, err := filepath.Glob("../docs/*.md")
	if err != nil || len(names) < 20 {
		t.Fatalf("%d pages, %v", len(names), err)
	}
	for _, name := range append(names, "../README.md", "../CHANGELOG.md", "../SECURITY.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range unwantedOn(strings.TrimPrefix(filepath.ToSlash(name), "../"), string(text)) {
			t.Errorf("%s: see the words of CONTRIBUTING.md", found)
		}
	}
}

func TestUnwantedWordsAreSeen(t *testing.T) {
	text := "package x\n\nvar a = \"Beside it\"\n\nvar b = \"besides, now-beside-kube-bridge\" // nobody\n"
	want := []string{"x.go: beside (line 3)"}
	if got := unwantedTexts(parse(t, "x.go", []byte(text))); !slices.Equal(got, want) {
		t.Errorf("in a program %q, want %q", got, want)
	}
	page := "[What nobody told us](adr/0001-x.md), `nobody`, forged\n"
	if got := unwantedOn("p.md", page); !slices.Equal(got, []string{"p.md: forged"}) {
		t.Errorf("on a page %q", got)
	}
}

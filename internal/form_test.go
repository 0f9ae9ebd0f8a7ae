// SPDX-License-Identifier: Apache-2.0

package internal_test

import (
	"bytes"
	"go/ast"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The form of files and packages.

// maxColumns is the longest line of code outside of tests, a tab counting as tabWidth.
const (
	maxColumns = 120
	tabWidth   = 4
)

// columns returns the width of a line.
func columns(line string) int {
	return utf8.RuneCountInString(line) + (tabWidth-1)*strings.Count(line, "\t")
}

// tooLong returns the lines, from 1, that are too long. Text between back quotes has the line breaks
// of its reader, and does not count.
func tooLong(s source) (list []int) {
	quoted := map[int]bool{}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if text, ok := n.(*ast.BasicLit); ok && strings.HasPrefix(text.Value, "`") {
			for i := s.set.Position(text.Pos()).Line; i <= s.set.Position(text.End()).Line; i++ {
				quoted[i] = true
			}
		}
		return true
	})
	for i, line := range strings.Split(string(s.text), "\n") {
		if columns(line) > maxColumns && !quoted[i+1] {
			list = append(list, i+1)
		}
	}
	return list
}

func TestLinesOfCodeAreNotTooLong(t *testing.T) {
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		for _, line := range tooLong(s) {
			t.Errorf("%s:%d is longer than %d columns; break it", s.name, line, maxColumns)
		}
	}
}

func TestColumnsAreCounted(t *testing.T) {
	long := strings.Repeat("x", maxColumns)
	text := "package x\n\n// " + long + "\nvar a, b = `\n" + long + "y`, `\n`\n\nvar c = \"" + long + "\"\n"
	if got := tooLong(parse(t, "x.go", []byte(text))); !slices.Equal(got, []int{3, 8}) {
		t.Errorf("lines %v are too long, want 3 and 8", got)
	}
	if got := columns("\t\u00e4b"); got != tabWidth+2 {
		t.Errorf("%d columns, want %d", got, tabWidth+2)
	}
}

// minSentences is the least that a package comment has: what the package does, and what it owns or
// never does.
const minSentences = 2

var sentenceEnd = regexp.MustCompile(`[.!?][)"]*(\s|$)`)

// sentences counts the sentences of a comment.
func sentences(text string) int { return len(sentenceEnd.FindAllString(text, -1)) }

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	comments, text := map[string][]string{}, map[string]string{}
	for _, s := range sources(t) {
		if s.test() {
			continue
		}
		list := comments[s.dir()]
		if s.file.Doc != nil {
			list, text[s.dir()] = append(list, s.name), s.file.Doc.Text()
		}
		comments[s.dir()] = list
	}
	for _, dir := range slices.Sorted(maps.Keys(comments)) {
		if files := comments[dir]; len(files) != 1 {
			t.Errorf("package %s has %d package comments, want 1: %v", dir, len(files), files)
		}
		if n := sentences(text[dir]); n < minSentences {
			t.Errorf("the comment of package %s has %d sentences, want %d: what it does, and what it owns", dir, n,
				minSentences)
		}
	}
}

func TestSentencesAreCounted(t *testing.T) {
	for text, want := range map[string]int{
		"Package x does one thing.\n": 1, "Package x reads a.yaml, e.g. of\nthe lab. It owns nothing (yet).\n": 3,
		"Package x": 0, "It is. It was.\nIt will be?\n": 3,
	} {
		if got := sentences(text); got != want {
			t.Errorf("%q has %d sentences, want %d", text, got, want)
		}
	}
}

func TestEveryFileBeginsWithTheLicence(t *testing.T) {
	for _, s := range sources(t) {
		if !bytes.HasPrefix(s.text, []byte(licence)) {
			t.Errorf("%s does not begin with %q and an empty line", s.name, strings.TrimSpace(licence))
		}
	}
}

// sizes returns the lines of a file and of each of its functions, by the name
// that exceptions uses.
func sizes(s source) (file int, functions map[string]int) {
	functions = map[string]int{}
	for _, decl := range s.file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			lines := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
			name := s.name + ":" + f.Name.Name
			functions[name] = max(functions[name], lines)
		}
	}
	return bytes.Count(s.text, []byte("\n")), functions
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	unused := exceptions()
	check := func(name string, lines, limit int) {
		if lines <= limit {
			return
		}
		if _, ok := exceptions()[name]; !ok {
			t.Errorf("%s has %d lines, more than %d; split it", name, lines, limit)
		}
		delete(unused, name)
	}
	for _, s := range sources(t) {
		file, functions := sizes(s)
		check(s.name, file, maxFileLines)
		for _, name := range slices.Sorted(maps.Keys(functions)) {
			check(name, functions[name], maxFuncLines)
		}
	}
	for name := range unused {
		t.Errorf("the exception for %s is not needed any more", name)
	}
}

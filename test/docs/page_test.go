// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// page is a document, with its path from the top of the repository.
type page struct{ name, text string }

// pages are the documents that say how it is now.
func pages(t *testing.T) []page {
	t.Helper()
	names := []string{"README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "SECURITY.md", "deploy/chart/podwall/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/design/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) < 3 {
			t.Fatalf("%s: %d pages, %v", pattern, len(files), err)
		}
		for _, f := range files {
			names = append(names, strings.TrimPrefix(filepath.ToSlash(f), root+"/"))
		}
	}
	var list []page
	for _, name := range names {
		list = append(list, page{name, read(t, name)})
	}
	return list
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// block is fenced text of a page.
type block struct {
	where    string // page and line
	language string
	text     string
}

// blocks returns the fenced blocks of a page, and its text without them.
func (p page) blocks() (list []block, prose string) {
	var b *block
	var rest, inside strings.Builder
	for i, line := range slices.Collect(strings.Lines(p.text)) {
		fence, fenced := strings.CutPrefix(strings.TrimLeft(line, " "), "```")
		switch {
		case fenced && b == nil:
			b = &block{where: fmt.Sprintf("%s:%d", p.name, i+1), language: strings.TrimSpace(fence)}
		case fenced:
			b.text = inside.String()
			list, b = append(list, *b), nil
			inside.Reset()
		case b != nil:
			inside.WriteString(line)
		default:
			rest.WriteString(line)
		}
	}
	if b != nil {
		list = append(list, block{where: b.where, language: "not closed"})
	}
	return list, rest.String()
}

var codeSpan = regexp.MustCompile("`([^`\n]+)`")

// spans returns what stands in the prose of a page as code.
func (p page) spans() (list []string) {
	_, prose := p.blocks()
	for _, m := range codeSpan.FindAllStringSubmatch(prose, -1) {
		list = append(list, strings.ReplaceAll(m[1], `\|`, "|")) // in tables
	}
	return list
}

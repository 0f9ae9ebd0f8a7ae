// SPDX-License-Identifier: Apache-2.0

package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

const maxStops = 8

// The walks in docs/design/walks.md name functions. They exist, and no walk is
// longer than a reader can keep in mind.
func TestTheWalksNamePlacesThatExist(t *testing.T) {
	text, err := os.ReadFile("../docs/design/walks.md")
	if err != nil {
		t.Fatal(err)
	}
	stop := regexp.MustCompile("(?m)^\\| [0-9]+ \\| `([a-z/]+\\.go)`, `([A-Za-z]+)`")
	for _, walk := range strings.Split(string(text), "\n## ")[1:] {
		name, _, _ := strings.Cut(walk, "\n")
		stops, seen := stop.FindAllStringSubmatch(walk, -1), map[string]bool{}
		if len(stops) == 0 || len(stops) > maxStops {
			t.Errorf("%s: %d stops, want 1 to %d", name, len(stops), maxStops)
		}
		for _, s := range stops {
			if seen[s[1]+s[2]] {
				t.Errorf("%s: %s of %s is visited twice", name, s[2], s[1])
			}
			seen[s[1]+s[2]] = true
			if !declares(t, s[1], s[2]) {
				t.Errorf("%s: there is no function %s in %s", name, s[2], s[1])
			}
		}
	}
}

func declares(t *testing.T, file, function string) bool {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return false
	}
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == function {
			return true
		}
	}
	return false
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"testing"
)

// The table must not rot: every mutant still applies, and is still Go.
func TestEveryMutantStillApplies(t *testing.T) {
	list, err := table()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) < 100 {
		t.Errorf("%d mutants, want at least 100", len(list))
	}
	seen := map[string]string{}
	for _, m := range list {
		t.Run(m.file+": "+m.mistake, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../..", m.file))
			if err != nil {
				t.Fatal(err)
			}
			mutated, err := m.apply(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.ParseFile(token.NewFileSet(), m.file, mutated, parser.AllErrors); err != nil {
				t.Error(err)
			}
			if other, again := seen[mutated]; again {
				t.Errorf("the same as %q", other)
			}
			seen[mutated] = m.mistake
			if len(m.suite()) == 0 {
				t.Error("no package is asked for mistakes in this file")
			}
		})
	}
}

func TestTablesAreRead(t *testing.T) {
	list, err := parse("# a comment\n\ninternal/x/y.go: a mistake\n one\n-two\n+three\n\ninternal/x/y.go: another\n-one\n")
	if err != nil || len(list) != 2 {
		t.Fatalf("%d mutants, %v; want 2", len(list), err)
	}
	want := mutant{"internal/x/y.go", "a mistake", "one\ntwo\n", "one\nthree\n"}
	if list[0] != want {
		t.Errorf("mutant = %q, want %q", list[0], want)
	}
	for _, bad := range []string{"what is this", "internal/x/y.go: a mistake\n-one\n?two\n", "internal/x/y.go: a mistake\ninternal/x/y.go: at once\n"} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestMutantsApplyOnceOrNotAtAll(t *testing.T) {
	tests := []struct {
		name, old, put, text, want string
	}{
		{"whole lines change", "\tb\n", "\tc\n", "a\n\tb\n", "a\n\tc\n"},
		{"the first line changes", "a\n", "", "a\n\tb\n", "\tb\n"},
		{"the end of a line is no line", "b\n", "c\n", "a\n\tb\n", ""},
		{"twice is not once", "b\n", "c\n", "b\na\nb\n", ""},
		{"not there", "x\n", "c\n", "a\n", ""},
		{"no change", "a\n", "a\n", "a\n", ""},
		{"nothing to change", "", "a\n", "a\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mutant{old: tt.old, put: tt.put}.apply(tt.text)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestTheFailedTestIsFound(t *testing.T) {
	tests := []struct{ name, out, want string }{
		{"a test", "--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\nFAIL\n", "TestA"},
		{"no time left", "panic: test timed out after 3m0s\n\trunning tests:\n\t\tTestB (3m0s)\n", "TestB (time)"},
		{"it does not compile", "./x.go:1:1: undefined: y\nFAIL\tx [build failed]\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := failure(tt.out); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docs/README.md leads to every document, and the README to it.
func TestTheIndexIsWhole(t *testing.T) {
	index := read(t, "docs/README.md")
	if !strings.Contains(read(t, "README.md"), "](docs/README.md)") {
		t.Error("README.md does not link docs/README.md")
	}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(filepath.ToSlash(path), root+"/docs/")
		if err != nil || d.IsDir() || filepath.Ext(name) != ".md" || name == "README.md" {
			return err
		}
		if !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not link %s", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Decisions have one number each, and say whether they hold.
func TestDecisionsAreNumbered(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs/adr/*.md"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d decisions, %v", len(files), err)
	}
	numbers := map[string]string{}
	for _, f := range files {
		name := filepath.Base(f)
		number, _, _ := strings.Cut(name, "-")
		if other := numbers[number]; other != "" {
			t.Errorf("%s and %s have one number", name, other)
		}
		numbers[number] = name
		text := read(t, "docs/adr/"+name)
		if !regexp.MustCompile(`^# (ADR )?` + number + `[:.] `).MatchString(text) {
			t.Errorf("%s does not begin with its number", name)
		}
		if !regexp.MustCompile(`(?m)^Status: (accepted|superseded|replaced)`).MatchString(text) {
			t.Errorf("%s does not say whether it holds", name)
		}
	}
}

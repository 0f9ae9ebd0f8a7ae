// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

// Several files and directories are read together, with those below if that is wanted,
// and each object has its file in messages.
func TestSeveralPlacesAreReadTogether(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	namespace := func(name string) string { return "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n" }
	write("deploy/a.yaml", namespace("a"))
	write("deploy/below/b.yaml", namespace("b"))
	write("deploy/.git/c.yaml", namespace("c"))
	write("deploy/notes.txt", "no manifest")
	single := write("single.yml", namespace("d"))
	broken := write("deploy/below/broken.yaml", "a: b: c\n")
	for _, tt := range []struct {
		name string
		from From
		want []string
	}{
		{"a directory", From{Paths: []string{filepath.Join(dir, "deploy")}}, []string{"a"}},
		{"what is below", From{Paths: []string{filepath.Join(dir, "deploy")}, Recursive: true}, []string{"a", "b"}},
		{"and a file", From{Paths: []string{filepath.Join(dir, "deploy"), single}, Recursive: true},
			[]string{"a", "b", "d"}},
		{"the standard input", From{Paths: []string{"-", single}, Text: []byte(namespace("e"))}, []string{"d", "e"}},
		{"nothing", From{}, nil},
	} {
		r, err := Load(tt.from)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, n := range r.Namespaces {
			names = append(names, n.Name)
		}
		objects, err := Objects(tt.from)
		if !slices.Equal(names, tt.want) || err != nil || len(objects) != len(tt.want) {
			t.Errorf("%s: namespaces %v, %d objects, %v; want %v", tt.name, names, len(objects), err, tt.want)
		}
		if said := slices.ContainsFunc(r.Diagnostics, func(d cluster.Diagnostic) bool {
			return d.Object.Name == filepath.Join("below", filepath.Base(broken))
		}); said != tt.from.Recursive {
			t.Errorf("%s: said is %v", tt.name, r.Diagnostics)
		}
	}
	for _, from := range []From{{Paths: []string{filepath.Join(dir, "none")}},
		{Paths: []string{filepath.Join(dir, "none")}, Recursive: true}} {
		if _, err := Load(from); err == nil {
			t.Errorf("%s is read", from)
		}
	}
}

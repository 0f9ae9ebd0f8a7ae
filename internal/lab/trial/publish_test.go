// SPDX-License-Identifier: Apache-2.0

//go:build linux

package trial

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// visible returns the files that a reader of the directory sees.
func visible(t *testing.T, dir string) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range names {
		if filepath.Base(name)[0] == '.' {
			continue // Glob shows hidden files, readers of manifests do not
		}
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = string(data)
	}
	return files
}

func TestPublishedFilesAreTheOnlyOnes(t *testing.T) {
	p, err := newPublisher(filepath.Join(t.TempDir(), "m"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []map[string]string{
		{"a.yaml": "1", "b.yaml": "2"},
		{"b.yaml": "3", "c.yaml": "4"},
		{},
		{"a.yaml": "5"},
	} {
		files := map[string][]byte{}
		for name, text := range want {
			files[name] = []byte(text)
		}
		if err := p.publish(files); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, visible(t, p.dir)); diff != "" {
			t.Errorf("published files (-want +got):\n%s", diff)
		}
	}
	// What is left is the present version, the link to it, and one file.
	if left, err := os.ReadDir(p.dir); err != nil || len(left) != 3 {
		t.Errorf("left behind %v (%v), want 3 entries", left, err)
	}
}

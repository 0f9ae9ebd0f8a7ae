// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// From lists the input of Load and Objects.
type From struct {
	// Paths are files and directories. "-" is Text.
	Paths []string
	// Recursive includes sub-directories.
	Recursive bool
	// Text is the content of the standard input.
	Text []byte
}

// Stdin is the path that stands for From.Text, and the name of that file in messages.
const Stdin = "-"

// String names the paths.
func (f From) String() string { return strings.Join(f.Paths, ", ") }

// maxText bounds the standard input, in bytes.
const maxText = 256 << 20

// ReadText reads Text from the standard input, if it is one of the paths and was not read.
func (f *From) ReadText(stdin io.Reader) error {
	if !slices.Contains(f.Paths, Stdin) || f.Text != nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(stdin, maxText+1))
	if err == nil && len(text) > maxText {
		err = fmt.Errorf("it is larger than %d MiB", maxText>>20)
	}
	if err != nil {
		return fmt.Errorf("reading the standard input: %w", err)
	}
	f.Text = text
	return nil
}

// read reads all paths in their order. A file in a directory is named by its path below the
// directory, one that was named itself by its last part.
func (f From) read() ([]rawFile, error) {
	var all []rawFile
	for _, path := range f.Paths {
		files, err := f.readOne(path)
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
	}
	return all, nil
}

func (f From) readOne(path string) ([]rawFile, error) {
	if path == Stdin {
		return []rawFile{{name: "stdin", data: f.Text}}, nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading manifests: %w", err)
	case !info.IsDir():
		return []rawFile{readFile(path)}, nil
	case !f.Recursive:
		return readDir(path)
	}
	return readBelow(path)
}

// readBelow reads the manifests of a directory and of all directories below it, except those whose
// name begins with a dot.
func readBelow(dir string) (files []rawFile, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		hidden := path != dir && strings.HasPrefix(e.Name(), ".")
		switch {
		case err != nil:
			return err
		case e.IsDir() && hidden:
			return filepath.SkipDir
		case e.IsDir() || !isManifest(e.Name()):
			return nil
		}
		raw := readFile(path)
		if errors.Is(raw.err, fs.ErrNotExist) || errors.Is(raw.err, errNoFile) {
			return nil
		}
		if name, err := filepath.Rel(dir, path); err == nil {
			raw.name = name
		}
		files = append(files, raw)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading manifests: %w", err)
	}
	return files, nil
}

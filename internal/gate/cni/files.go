// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// write replaces a file in one step: whoever reads it sees the old content or
// the new one, also after a crash. Nothing happens if it has the content.
func write(path string, data []byte, mode fs.FileMode) (changed bool, err error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return false, nil
	}
	// Runtimes read files by their ending; this one has none that they know.
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".podwall-new-*")
	if err != nil {
		return false, explained(path, fmt.Errorf("writing %s: %w", path, err))
	}
	_, err = temp.Write(data)
	err = errors.Join(err, temp.Chmod(mode), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return false, errors.Join(explained(path, fmt.Errorf("writing %s: %w", path, err)), os.Remove(temp.Name()))
	}
	return true, syncDir(filepath.Dir(path))
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explained(path, fmt.Errorf("removing %s: %w", path, err))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames and removals last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("writing %s: %w", dir, err)
	}
	return nil
}

// found is a configuration file.
type found struct {
	name string
	data []byte
	mode fs.FileMode
	list list
}

// first returns the configuration that runtimes use: the first by name that
// they can read and that wires pods. Broken ones before it are returned too.
func first(dir string) (f found, ok bool, broken []error, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return f, false, nil, explained(dir, fmt.Errorf("reading %s: %w", dir, err))
	}
	for _, e := range entries { // sorted by name
		if e.IsDir() || !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		f, err := read(filepath.Join(dir, e.Name()))
		switch {
		case err != nil:
			broken = append(broken, fmt.Errorf("%s: %w", e.Name(), err))
		case !f.list.loopbackOnly():
			return f, true, broken, nil
		}
	}
	return f, false, broken, nil
}

func read(path string) (f found, err error) {
	f.name = filepath.Base(path)
	info, err := os.Stat(path)
	if err != nil {
		return f, err
	}
	f.mode = info.Mode().Perm()
	if f.data, err = os.ReadFile(path); err != nil {
		return f, explained(path, err)
	}
	f.list, err = readList(f.data)
	return f, err
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// found is a configuration file that runtimes can read.
type found struct {
	name string
	data []byte
	mode fs.FileMode
	link bool // the name is a symbolic link
	list list
}

// directory is what a directory of configurations holds.
type directory struct {
	files   []found          // that wire pods, in the order in which runtimes prefer them
	broken  map[string]error // of files that runtimes cannot read, by name
	records map[string]record
}

// look reads the directory as runtimes do: files by their ending, sorted by name. A
// configuration of the loopback is left out.
func (i Installer) look() (d directory, err error) {
	entries, err := os.ReadDir(i.ConfDir)
	if err != nil {
		return d, explained(i.path(recordName), fmt.Errorf("reading %s: %w", i.ConfDir, err))
	}
	if d.records, err = i.readRecords(entries); err != nil {
		return d, err
	}
	d.broken = map[string]error{}
	for _, e := range entries { // sorted by name
		if e.IsDir() || !isConf(e.Name()) {
			continue
		}
		f, err := read(i.path(e.Name()))
		switch {
		case err != nil:
			d.broken[e.Name()] = err
		case !f.list.loopbackOnly():
			d.files = append(d.files, f)
		}
	}
	return d, nil
}

func isConf(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// source returns the pod network's own file that runtimes would use if we had no list
// beside it.
func (d directory) source() (f found, ok bool) {
	for _, f := range d.files {
		if !f.beside() {
			return f, true
		}
	}
	return f, false
}

// complaints returns what to say of files that runtimes cannot read.
func (d directory) complaints() (list []string) {
	for _, name := range slices.Sorted(maps.Keys(d.broken)) {
		list = append(list, fmt.Sprintf("runtimes cannot read %s: %v; mend or remove it: containerd starts no pod "+
			"if it is the first file by name", name, d.broken[name]))
	}
	return list
}

// read reads a file as runtimes do: a list from a .conflist, a single plugin from any
// other.
func read(path string) (f found, err error) {
	f.name = filepath.Base(path)
	info, err := os.Lstat(path)
	if err != nil {
		return f, err
	}
	f.link = info.Mode().Type() == fs.ModeSymlink
	if info, err = os.Stat(path); err != nil {
		return f, err
	}
	f.mode = info.Mode().Perm()
	if f.data, err = readRegular(path, 0, maxConf); err != nil {
		return f, explained(path, err)
	}
	if !isList(f.name) {
		f.list, err = readSingle(f.data)
		return f, err
	}
	if f.list, err = readList(f.data); err != nil {
		return f, err
	}
	return f, f.list.loadOutside(filepath.Dir(path))
}

func isList(name string) bool { return filepath.Ext(name) == ".conflist" }

// besideEnd is the end of the names of our lists beside files that must stay as they are.
const besideEnd = "-with-" + Name + ".conflist"

// besideName is the name of our list beside a file. It sorts before the file, so that
// runtimes prefer it, also when the file is written again.
func besideName(name string) string { return strings.TrimSuffix(name, filepath.Ext(name)) + besideEnd }

// beside reports whether the file is a list of ours beside another.
func (f found) beside() bool { return strings.HasSuffix(f.name, besideEnd) && f.list.has() }

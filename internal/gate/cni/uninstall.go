// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
)

// Uninstall takes the entry out again. A configuration that is as Install wrote
// it becomes the original, byte for byte. From one that was changed since,
// only our entry goes. A list of ours beside a file goes. The program stays for as
// long as runtimes may run it again, for a sandbox that was started with it.
func (i Installer) Uninstall() error {
	d, err := i.look()
	if err != nil {
		return err
	}
	if err := i.removeBeside(d, nil); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.records)) {
		if err := i.restore(d.records[name]); err != nil {
			return err
		}
	}
	if err := i.removeEntries(); err != nil {
		return err
	}
	if err := i.removeOwn(d); err != nil {
		return err
	}
	return i.removeProgram()
}

// restore puts the original back, unless it was changed since we wrote it.
func (i Installer) restore(r record) error {
	data, err := readOwn(i.path(r.Installed))
	if err != nil || !r.wrote(data) {
		return nil // see removeEntries
	}
	old, err := readOwn(i.path(r.Original + original))
	if err != nil {
		i.say("the original of %s is gone; only the entry is removed: %v", r.Installed, err)
		return nil
	}
	if r.Installed == r.Original {
		_, err = i.write(i.path(r.Original), old, r.Mode)
	} else if _, stat := os.Lstat(i.path(r.Original)); errors.Is(stat, fs.ErrNotExist) { // of an older release
		_, err = i.write(i.path(r.Original), old, r.Mode)
	} // else the network's own program wrote it again, and it counts
	if err != nil {
		return err
	}
	i.say("restored %s", r.Original)
	if r.Installed != r.Original {
		return i.remove(i.path(r.Installed))
	}
	return nil
}

// removeEntries takes our entry out of every configuration.
func (i Installer) removeEntries() error {
	d, err := i.look()
	if err != nil {
		return err
	}
	for _, f := range d.files {
		if !f.list.has() {
			continue
		}
		if err := i.removeEntry(f); err != nil {
			return err
		}
	}
	return nil
}

func (i Installer) removeEntry(f found) error {
	l := f.list.without()
	switch {
	case len(l.plugins) == len(f.list.plugins):
		i.say("left the entry %s in the directory %s: it was written by hand", Name, l.name)
		return nil
	case len(l.plugins) == 0 || !isList(f.name):
		i.say("left %s alone: it holds nothing but %s", f.name, Name)
		return nil
	}
	data, err := l.bytes()
	if err != nil {
		return err
	}
	i.say("removed the entry %s from %s, which was changed since", Name, f.name)
	_, err = i.write(i.path(f.name), data, f.mode)
	return err
}

// removeOwn removes records, originals, and what a crash left.
func (i Installer) removeOwn(d directory) error {
	for _, r := range d.records {
		if err := i.remove(i.path(r.Original + original)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(i.ConfDir)
	if err != nil {
		return fmt.Errorf("reading %s: %w", i.ConfDir, err)
	}
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == recordName, strings.HasSuffix(name, recordEnd):
		case strings.HasPrefix(name, ".") && strings.Contains(name, newFile):
		case strings.HasSuffix(name, original) && i.needless(strings.TrimSuffix(name, original)):
		default:
			continue
		}
		if err := i.remove(i.path(name)); err != nil {
			return err
		}
	}
	return nil
}

// needless reports whether the original that we kept of a file is what the file is.
func (i Installer) needless(name string) bool {
	kept, err := readOwn(i.path(name + original))
	if err != nil {
		return false
	}
	now, err := readOwn(i.path(name))
	if err != nil || !bytes.Equal(kept, now) {
		i.say("left %s: no record says what it belongs to", name+original)
		return false
	}
	return true
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Uninstall takes the entry out again. A configuration that is as Install wrote
// it becomes the original, byte for byte. From one that somebody changed since,
// only our entry goes. The program stays for as long as runtimes may run it once
// more, for a sandbox that was started with it.
func (i Installer) Uninstall() error {
	r, known := i.recorded()
	if known {
		if err := i.restore(r); err != nil {
			return err
		}
	}
	if err := i.removeEntries(); err != nil {
		return err
	}
	if known {
		if err := errors.Join(remove(i.path(r.Original+original)), remove(i.path(recordName))); err != nil {
			return err
		}
	}
	return i.removeProgram()
}

// restore puts the original back, unless somebody changed what we wrote.
func (i Installer) restore(r record) error {
	data, err := os.ReadFile(i.path(r.Installed))
	if err != nil || digest(data) != r.Digest {
		return nil // see removeEntries
	}
	old, err := os.ReadFile(i.path(r.Original + original))
	if err != nil {
		i.say("the original of %s is gone; only the entry is removed: %v", r.Installed, err)
		return nil
	}
	if r.Installed == r.Original {
		_, err = write(i.path(r.Original), old, r.Mode)
	} else if _, stat := os.Lstat(i.path(r.Original)); errors.Is(stat, fs.ErrNotExist) {
		_, err = write(i.path(r.Original), old, r.Mode)
	} // else the network's own program wrote it again, and it counts
	if err != nil {
		return err
	}
	i.say("restored %s", r.Original)
	if r.Installed != r.Original {
		return remove(i.path(r.Installed))
	}
	return nil
}

// removeEntries takes our entry out of every configuration.
func (i Installer) removeEntries() error {
	entries, err := os.ReadDir(i.ConfDir)
	if err != nil {
		return fmt.Errorf("reading %s: %w", i.ConfDir, err)
	}
	for _, e := range entries {
		if e.IsDir() || !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			continue
		}
		f, err := read(i.path(e.Name()))
		if err != nil {
			continue // nothing of ours is in what cannot be read
		}
		if some, _ := f.list.has(i.Entry); !some {
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
	if len(l.plugins) == 0 {
		i.say("left %s alone: it holds nothing but %s", f.name, Name)
		return nil
	}
	data, err := l.bytes()
	if err != nil {
		return err
	}
	i.say("removed the entry %s from %s, which was changed since", Name, f.name)
	_, err = write(i.path(f.name), data, f.mode)
	return err
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The usual directories of container runtimes.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

// Installer puts the plugin into the pod network's configuration.
//
// A list (.conflist) gets our entry in place, so that what the pod network changes in
// it stays in force. A file with a single plugin cannot take an entry: a list of ours
// is written beside it, and the file stays as it is. kube-router's init container
// writes its .conf wherever it is missing, and runtimes would prefer that one to a list
// of the same name. A symbolic link is left alone in the same way.
type Installer struct {
	ConfDir, BinDir string
	// CacheDir is where runtimes note what sandboxes were started with.
	CacheDir string
	// Program is the file to install as the plugin, usually this one.
	Program string
	Entry   Entry
	// Out takes one line for each thing that was done.
	Out io.Writer

	crash func(path string) error // tests end the process here
}

// ErrNoNetwork says that the directory has no configuration of a pod network.
var ErrNoNetwork = errors.New("no pod network is configured")

// Install copies the program, then adds the entry to the configuration that
// runtimes use. Doing it again changes nothing. An error that wraps
// ErrNoNetwork means that there is nothing to add it to, yet.
func (i Installer) Install() error {
	complaints, err := i.install()
	for _, c := range complaints {
		i.say("%s", c)
	}
	return err
}

// install returns what is wrong with files that are not ours, too.
func (i Installer) install() (complaints []string, err error) {
	if err := i.installProgram(); err != nil {
		return nil, err
	}
	d, err := i.look()
	if err != nil {
		return nil, err
	}
	return d.complaints(), i.installInto(d)
}

func (i Installer) installInto(d directory) (err error) {
	f, ok := d.source()
	if !ok {
		return errors.Join(i.removeUnused(d, ""),
			fmt.Errorf("%w in %s: install the pod network first, or run install --watch", ErrNoNetwork, i.ConfDir))
	}
	installed := f.name
	switch {
	case f.list.settled(i.Entry):
	case isList(f.name) && !f.link:
		err = i.installInPlace(d, f)
	default:
		installed = besideName(f.name)
		err = i.installBeside(f)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return i.removeUnused(d, installed)
}

// installProgram comes first: a configuration must not name a missing plugin.
func (i Installer) installProgram() error {
	data, err := os.ReadFile(i.Program)
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	if err := os.MkdirAll(i.BinDir, 0o755); err != nil {
		return explained(filepath.Join(i.BinDir, Name), fmt.Errorf("making %s: %w", i.BinDir, err))
	}
	path := filepath.Join(i.BinDir, Name)
	changed, err := i.write(path, data, 0o755)
	if changed {
		i.say("wrote %s", path)
	}
	return err
}

// installInPlace adds our entry to a list, or changes it. The original is kept first,
// then the record.
func (i Installer) installInPlace(d directory, f found) error {
	data, err := i.extended(f, f.list)
	if err != nil {
		return err
	}
	if err := i.mayChain(f); err != nil {
		return err
	}
	r, known := d.records[f.name]
	changed := f.list.has()
	switch {
	case !changed:
		r = record{Original: f.name, Mode: f.mode, Installed: f.name}
		if _, err := i.write(i.path(f.name+original), f.data, 0o600); err != nil {
			return err
		}
	case known && r.wrote(f.data): // the original stays what it was
		r.Previous = digest(f.data)
	default: // another program changed it, or the entry was written by hand
		known = false
	}
	if r.Digest = digest(data); known || !changed {
		if err := i.keep(r); err != nil {
			return err
		}
	}
	if _, err := i.write(i.path(f.name), data, f.mode); err != nil {
		return err
	}
	if changed {
		i.say("changed the entry %s in %s", Name, f.name)
	} else {
		i.say("added %s to %s; the original is %s", Name, f.name, f.name+original)
	}
	return nil
}

// installBeside writes a list of ours that has the plugin of a file and our entry.
func (i Installer) installBeside(f found) error {
	name := besideName(f.name)
	there, err := read(i.path(name))
	if !errors.Is(err, fs.ErrNotExist) && !there.beside() {
		return fmt.Errorf("its list would be %s, which is there and has no entry %s; remove one of the two", name, Name)
	}
	data, err := i.extended(f, there.list)
	if err != nil || bytes.Equal(there.data, data) {
		return err
	}
	if err := i.mayChain(f); err != nil {
		return err
	}
	if _, err := i.write(i.path(name), data, f.mode); err != nil {
		return err
	}
	i.say("wrote %s: %s with %s; runtimes prefer it", name, f.name, Name)
	return nil
}

// extended returns a file's list with our entry as the last plugin, and as the only one
// of ours. Settings that are not given are those of an earlier list.
func (i Installer) extended(f found, earlier list) ([]byte, error) {
	switch {
	case len(f.list.outside) > 0:
		return nil, fmt.Errorf("some of its plugins are files in the directory %s; write the entry by hand, "+
			"as the last of them: {\"type\": %q}", f.list.name, Name)
	case len(f.list.without().plugins) == 0:
		return nil, fmt.Errorf("plugins: there is none but %s, so no pod gets an address; remove the file", Name)
	}
	entry, err := marshal(i.Entry)
	if err != nil {
		return nil, err
	}
	if ours := earlier.ours(); i.Entry.bare() && len(ours) > 0 {
		entry = ours[len(ours)-1]
	}
	l, err := f.list.chained()
	if err != nil {
		return nil, err
	}
	l = l.without()
	l.plugins = append(l.plugins, entry)
	return l.bytes()
}

// removeUnused removes lists of ours beside files that runtimes would not use, or that
// are gone. One whose file cannot be read now stays: its writer may not have finished.
func (i Installer) removeUnused(d directory, used string) error {
	keep := map[string]bool{used: true}
	for name := range d.broken {
		keep[besideName(name)] = true
	}
	return i.removeBeside(d, keep)
}

// removeBeside removes lists of ours beside files, but for some.
func (i Installer) removeBeside(d directory, keep map[string]bool) error {
	for _, f := range d.files {
		if !f.beside() || keep[f.name] {
			continue
		}
		if err := i.remove(i.path(f.name)); err != nil {
			return err
		}
		i.say("removed %s", f.name)
	}
	return nil
}

func (i Installer) path(name string) string { return filepath.Join(i.ConfDir, name) }

func (i Installer) say(format string, args ...any) { fmt.Fprintf(i.Out, format+"\n", args...) }

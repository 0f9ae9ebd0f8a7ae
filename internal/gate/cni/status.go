// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/podwall/podwall/internal/gate"
)

// Status says whether the plugin is in use, and whether an agent answers. The
// error names what is missing.
func (i Installer) Status(ctx context.Context) error {
	errs := []error{i.statusOfDirectory()}
	socket := i.Socket()
	known, err := (gate.Client{Socket: socket}).List(ctx)
	if err == nil {
		i.say("agent: answers on %s, %d pods announced", socket, len(known))
	}
	return errors.Join(append(errs, err, i.statusOfProgram())...)
}

// Socket returns the agent's socket: the one that Entry names, else that of the installed
// entry, else the default.
func (i Installer) Socket() string {
	if i.Entry.Socket != "" {
		return i.Entry.Socket
	}
	d, err := i.look()
	if err != nil {
		return gate.DefaultSocket
	}
	for _, f := range d.files { // runtimes use the first
		for _, raw := range f.list.ours() {
			var e Entry
			if json.Unmarshal(raw, &e) == nil {
				return cmp.Or(e.Socket, gate.DefaultSocket)
			}
		}
	}
	return gate.DefaultSocket
}

func (i Installer) statusOfDirectory() error {
	d, err := i.look()
	for _, c := range d.complaints() {
		i.say("%s", c)
	}
	switch {
	case err != nil:
		return err
	case len(d.files) == 0:
		return fmt.Errorf("%w in %s", ErrNoNetwork, i.ConfDir)
	}
	f := d.files[0] // the one that runtimes use
	if !f.list.has() {
		return fmt.Errorf("pods start without the gate: runtimes use %s, which has no entry %s; "+
			"run podwall-gate install; install --watch keeps the entry there", f.name, Name)
	}
	for name := range d.broken {
		if name < f.name {
			return fmt.Errorf("%s comes before %s and cannot be read: containerd starts no pod; mend or remove it",
				name, f.name)
		}
	}
	if !f.list.settled(Entry{Type: Name}) {
		return fmt.Errorf("no pod starts with %s: its entry %s must be there once, behind another plugin; "+
			"run podwall-gate install", f.name, Name)
	}
	i.say("configuration: %s has the entry", f.name)
	r, known := d.records[f.name]
	switch {
	case f.beside():
		return i.statusBeside(d, f)
	case known && !r.wrote(f.data):
		i.say("configuration: another program changed %s since; uninstall will remove the entry only", f.name)
	}
	return nil
}

// statusBeside reports whether a list of ours is what the pod network wants now.
func (i Installer) statusBeside(d directory, f found) error {
	source, ok := d.source()
	if !ok || besideName(source.name) != f.name {
		return fmt.Errorf("%s belongs to a file that is gone; run podwall-gate install", f.name)
	}
	i.Entry = Entry{Type: Name} // whatever the settings are
	want, err := i.extended(source, f.list)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", source.name, err)
	case !bytes.Equal(want, f.data):
		return fmt.Errorf("%s differs from what %s says now; run podwall-gate install; install --watch follows it",
			f.name, source.name)
	}
	i.say("configuration: it is made from %s", source.name)
	return nil
}

func (i Installer) statusOfProgram() error {
	have, err := os.ReadFile(filepath.Join(i.BinDir, Name))
	if err != nil {
		return fmt.Errorf("reading the plugin: %w", err)
	}
	mine, err := os.ReadFile(i.Program)
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	if !bytes.Equal(have, mine) {
		return fmt.Errorf("%s is of another release than this program; run podwall-gate install",
			filepath.Join(i.BinDir, Name))
	}
	i.say("plugin: %s is this release", filepath.Join(i.BinDir, Name))
	return nil
}

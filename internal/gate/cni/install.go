// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The usual directories of container runtimes.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

// Installer puts the plugin into the pod network's configuration.
type Installer struct {
	ConfDir, BinDir string
	// CacheDir is where runtimes note what sandboxes were started with.
	CacheDir string
	// Program is the file to install as the plugin, usually this one.
	Program string
	Entry   Entry
	// Out takes one line for each thing that was done.
	Out io.Writer
}

// ErrNoNetwork says that the directory has no configuration of a pod network.
var ErrNoNetwork = errors.New("no pod network is configured")

// Endings of our own files, which no runtime reads.
const (
	original   = ".podwall-original"
	recordName = ".podwall-gate.record"
)

// record says what was changed, so that it can be undone.
type record struct {
	Version int `json:"version"`
	// Original is the file that was there, kept as Original + ".podwall-original".
	Original string `json:"original"`
	// Mode is its mode.
	Mode fs.FileMode `json:"mode"`
	// Installed is the file that was written, and the digest of its content.
	Installed string `json:"installed"`
	Digest    string `json:"sha256"`
}

// Install copies the program, then adds the entry to the configuration that
// runtimes use. Doing it again changes nothing. An error that wraps
// ErrNoNetwork means that there is nothing to add it to, yet.
func (i Installer) Install() error {
	if err := i.installProgram(); err != nil {
		return err
	}
	f, ok, broken, err := first(i.ConfDir)
	if err != nil {
		return err
	}
	for _, b := range broken {
		i.say("not readable, and not used by runtimes: %v", b)
	}
	if !ok {
		return fmt.Errorf("%w in %s: install the pod network first, or run install --watch", ErrNoNetwork, i.ConfDir)
	}
	if some, same := f.list.has(i.Entry); some && (same || i.Entry == Entry{Type: Name}) {
		return nil // without settings of our own, those that are there stay
	} else if some {
		return i.update(f)
	}
	return i.add(f)
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
	changed, err := write(path, data, 0o755)
	if changed {
		i.say("wrote %s", path)
	}
	return err
}

// add writes the configuration with our entry. The original is kept first, then
// the record; a single plugin's file goes last, when the list is there that
// takes its place (it would come before the list).
func (i Installer) add(f found) error {
	if err := f.list.chains(); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	data, err := i.extended(f.list)
	if err != nil {
		return err
	}
	r := record{Version: 1, Original: f.name, Mode: f.mode, Installed: listName(f), Digest: digest(data)}
	if err := i.refuseForeign(r); err != nil {
		return err
	}
	if _, err := write(i.path(f.name+original), f.data, 0o600); err != nil {
		return err
	}
	if err := i.keep(r); err != nil {
		return err
	}
	if _, err := write(i.path(r.Installed), data, f.mode); err != nil {
		return err
	}
	i.say("added %s to %s; the original is %s", Name, r.Installed, f.name+original)
	if r.Installed == f.name {
		return nil
	}
	i.say("removed %s, which %s replaces", f.name, r.Installed)
	return remove(i.path(f.name))
}

// update writes other settings into our entry. If the file is as we wrote it,
// the original stays what it was.
func (i Installer) update(f found) error {
	data, err := i.extended(f.list)
	if err != nil {
		return err
	}
	r, known := i.recorded()
	ours := known && r.Installed == f.name && r.Digest == digest(f.data)
	if _, err := write(i.path(f.name), data, f.mode); err != nil {
		return err
	}
	i.say("changed the settings of %s in %s", Name, f.name)
	if !ours {
		return nil
	}
	r.Digest = digest(data)
	return i.keep(r)
}

func (i Installer) extended(l list) ([]byte, error) {
	l, err := l.with(i.Entry)
	if err != nil {
		return nil, err
	}
	return l.bytes()
}

// refuseForeign stops before a list of somebody else would be overwritten.
func (i Installer) refuseForeign(r record) error {
	if r.Installed == r.Original {
		return nil
	}
	f, err := read(i.path(r.Installed))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if some, _ := f.list.has(i.Entry); err == nil && some {
		return nil // ours, from before the network's own program wrote its file again
	}
	return fmt.Errorf("%s has to become %s, which is there already; remove one of them", r.Original, r.Installed)
}

// listName is the name of the list that takes a file's place. A file .json may
// hold either.
func listName(f found) string {
	ext := filepath.Ext(f.name)
	if ext == ".conflist" {
		return f.name
	}
	return strings.TrimSuffix(f.name, ext) + ".conflist"
}

func (i Installer) path(name string) string { return filepath.Join(i.ConfDir, name) }

func (i Installer) keep(r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the record: %w", err)
	}
	_, err = write(i.path(recordName), append(data, '\n'), 0o600)
	return err
}

func (i Installer) recorded() (r record, ok bool) {
	data, err := os.ReadFile(i.path(recordName))
	if err != nil || json.Unmarshal(data, &r) != nil {
		return r, false
	}
	plain := func(name string) bool { return name != "" && filepath.Base(name) == name }
	return r, r.Version == 1 && plain(r.Original) && plain(r.Installed)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func (i Installer) say(format string, args ...any) { fmt.Fprintf(i.Out, format+"\n", args...) }

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/podwall/podwall/internal/gate"
)

// settleTime is how long the directory must be quiet before we look: programs
// write their files in several steps. It also bounds how often two programs can
// overwrite each other.
const settleTime = 200 * time.Millisecond

// Watch installs, and installs again whenever the pod network's own program
// wrote its configuration anew, until ctx ends. A directory without
// configuration is waited for; one that cannot be watched is an error.
func (i Installer) Watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", i.ConfDir, err)
	}
	defer w.Close()
	if err := os.MkdirAll(i.ConfDir, 0o755); err != nil {
		return explained(i.path(recordName), fmt.Errorf("making %s: %w", i.ConfDir, err))
	}
	if err := w.Add(i.ConfDir); err != nil {
		return fmt.Errorf("watching %s: %w", i.ConfDir, err)
	}
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.Errors:
			i.say("watching %s: %v", i.ConfDir, err)
			due.Reset(settleTime)
		case <-w.Events:
			due.Reset(settleTime)
		case <-due.C:
			if err := i.Install(); err != nil {
				i.say("%v", err)
			}
		}
	}
}

// Status says whether the plugin is in use, and whether an agent answers. The
// error names what is missing.
func (i Installer) Status(ctx context.Context) error {
	var errs []error
	f, ok, _, err := first(i.ConfDir)
	switch {
	case err != nil:
		errs = append(errs, err)
	case !ok:
		errs = append(errs, fmt.Errorf("%w in %s", ErrNoNetwork, i.ConfDir))
	default:
		errs = append(errs, i.statusOf(f))
	}
	socket := i.Entry.Socket
	if socket == "" {
		socket = gate.DefaultSocket
	}
	known, err := (gate.Client{Socket: socket}).List(ctx)
	if err == nil {
		i.say("agent: answers on %s, %d pods announced", socket, len(known))
	}
	return errors.Join(append(errs, err, i.statusOfProgram())...)
}

func (i Installer) statusOf(f found) error {
	if some, _ := f.list.has(i.Entry); !some {
		return fmt.Errorf("%s has no entry %s; run podwall-gate install", f.name, Name)
	}
	i.say("configuration: %s has the entry", f.name)
	if r, known := i.recorded(); known && r.Installed == f.name && r.Digest != digest(f.data) {
		i.say("configuration: somebody changed %s since; uninstall will remove the entry only", f.name)
	}
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
		return fmt.Errorf("%s is of another release than this program; run podwall-gate install", filepath.Join(i.BinDir, Name))
	}
	i.say("plugin: %s is this release", filepath.Join(i.BinDir, Name))
	return nil
}

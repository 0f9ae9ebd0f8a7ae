// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// DefaultCacheDir is where the runtimes' library notes what each sandbox was started
// with.
const DefaultCacheDir = "/var/lib/cni"

// started is what the library (libcni's cacheV1) notes of a sandbox: the whole
// configuration that it was started with. A runtime may end the sandbox by it,
// whatever the configuration is by then.
type started struct {
	Config []byte `json:"config"`
}

// pending counts the sandboxes that were started with the plugin and have not ended.
// A note that cannot be read counts: its sandbox may need the plugin. The error is
// fs.ErrNotExist if there are no notes at all.
func (i Installer) pending() (n int, err error) {
	entries, err := os.ReadDir(filepath.Join(i.CacheDir, "results"))
	if err != nil {
		return 0, fmt.Errorf("reading what sandboxes were started with: %w", err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(i.CacheDir, "results", e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it ended meanwhile
		}
		var s started
		if err != nil || json.Unmarshal(data, &s) != nil || strings.Contains(string(s.Config), `"`+Name+`"`) {
			n++
		}
	}
	return n, nil
}

// removeProgram removes the program once no sandbox needs it.
func (i Installer) removeProgram() error {
	program := filepath.Join(i.BinDir, Name)
	if _, err := os.Lstat(program); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	n, err := i.pending()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		i.say("%s stays: %s has no notes of sandboxes, and some may need it again when they end; "+
			"remove it when they are gone", program, i.CacheDir)
		return nil
	case err != nil:
		return err
	case n > 0:
		i.say("%s stays: %d sandboxes were started with it and need it again when they end; "+
			"uninstall again when they are gone", program, n)
		return nil
	}
	i.say("removed %s: no sandbox needs it", program)
	return i.remove(program)
}

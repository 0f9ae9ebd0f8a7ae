// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The program stays until the last sandbox that was started with it has ended, and
// where nobody knows which those are.
func TestUninstallKeepsTheProgramForAsLongAsASandboxNeedsIt(t *testing.T) {
	y := newYard(t, "bridge.conflist")
	y.check(y.Install())
	results := filepath.Join(y.CacheDir, "results")
	note := func(name, config string) {
		t.Helper()
		data, err := json.Marshal(map[string]any{"kind": "cniCacheV1", "containerId": name, "config": []byte(config)})
		y.check(err)
		y.check(os.WriteFile(filepath.Join(results, name), data, 0o600))
	}
	uninstall := func(says string, stays bool) {
		t.Helper()
		y.out.Reset()
		y.check(y.Uninstall())
		_, err := os.Stat(filepath.Join(y.BinDir, Name))
		if stays != (err == nil) || !strings.Contains(y.out.String(), says) {
			t.Errorf("the program is there: %t, want %t; said %q, want %q", err == nil, stays, y.out, says)
		}
	}
	uninstall("has no notes of sandboxes", true)
	y.check(os.MkdirAll(results, 0o755))
	note("old", `{"name": "net", "plugins": [{"type": "bridge"}]}`)
	note("ours-1", `{"name": "net", "plugins": [{"type": "bridge"}, {"type": "podwall-gate"}]}`)
	note("ours-2", `{"name": "net", "plugins": [{"type": "bridge"}, {"type":"podwall-gate"}]}`)
	y.check(os.WriteFile(filepath.Join(results, "torn"), []byte("{"), 0o600))
	uninstall("3 sandboxes", true)
	for _, name := range []string{"ours-1", "ours-2", "torn"} {
		y.check(os.Remove(filepath.Join(results, name)))
	}
	uninstall("no sandbox needs it", false)
	uninstall("", false)
}

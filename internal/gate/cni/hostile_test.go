// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// list writes a list of these plugins.
func (y yard) list(name, plugins string) {
	y.t.Helper()
	text := `{"cniVersion": "1.0.0", "name": "x", "plugins": [` + plugins + `]}`
	y.check(os.WriteFile(y.path(name), []byte(text), 0o644))
}

// A link stays what it is, and so does what it leads to.
func TestALinkToAConfigurationStays(t *testing.T) {
	for _, file := range []string{"flannel.conflist", "ptp.conf"} {
		y := newYard(t)
		target := filepath.Join(t.TempDir(), "target")
		data, err := os.ReadFile("testdata/" + file)
		y.check(err)
		y.check(os.WriteFile(target, data, 0o640))
		y.check(os.Symlink(target, y.path("10-"+file)))
		y.check(y.Install())
		if _, types := y.takes(); !slices.Contains(types, Name) {
			t.Errorf("%s: the plugins are %v", file, types)
		}
		if got, err := os.Readlink(y.path("10-" + file)); err != nil || got != target {
			t.Errorf("%s: the link leads to %q, %v", file, got, err)
		}
		if now, err := os.ReadFile(target); err != nil || string(now) != string(data) {
			t.Errorf("%s: the target was changed, %v", file, err)
		}
		y.check(y.Uninstall())
		if files := y.files(); len(files) != 1 {
			t.Errorf("%s: after uninstall there are %v", file, files)
		}
	}
}

// Who may write the directory must not get a file of root's through us: not by links in
// place of our own files, in either direction.
func TestLinksInPlaceOfOurFilesAreNotFollowed(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	y := newYard(t, "flannel.conflist")
	for _, name := range []string{"10-flannel.conflist" + original, "10-flannel.conflist" + recordEnd, recordName} {
		y.check(os.Symlink(secret, y.path(name)))
	}
	y.check(y.Install())
	y.check(os.Remove(y.path("10-flannel.conflist" + original)))
	y.check(os.Symlink(secret, y.path("10-flannel.conflist"+original)))
	y.check(y.Uninstall())
	for name, content := range y.files() {
		if strings.Contains(content, "secret") {
			t.Errorf("%s holds what only root may read", name)
		}
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("the target of the links is %q, %v", data, err)
	}
}

// What is no file cannot hold the installer up.
func TestAPipeIsNotWaitedFor(t *testing.T) {
	y := newYard(t, "flannel.conflist")
	y.check(syscall.Mkfifo(y.path("00-pipe.conflist"), 0o644))
	y.check(os.Symlink("loop.conf", y.path("loop.conf")))
	y.check(y.Install())
	y.check(os.Remove(y.path("00-pipe.conflist")))
	if !strings.Contains(y.out.String(), "00-pipe.conflist") || !slices.Contains(y.used(), Name) {
		t.Errorf("the plugins are %v; said is\n%s", y.used(), y.out)
	}
}

func TestTenThousandPlugins(t *testing.T) {
	y := newYard(t)
	plugins := make([]map[string]string, 10_000)
	for n := range plugins {
		plugins[n] = map[string]string{"type": "bridge"}
	}
	data, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "x", "plugins": plugins})
	y.check(err)
	y.check(os.WriteFile(y.path("10-x.conflist"), data, 0o644))
	before := y.files()
	y.check(y.Install())
	if used := y.used(); len(used) != len(plugins)+1 || used[len(plugins)] != Name {
		t.Errorf("there are %d plugins", len(used))
	}
	y.check(y.Uninstall())
	if !cmp.Equal(before, y.files()) {
		t.Error("uninstall does not restore the file")
	}
}

// Twice would announce each pod twice, and before the others the entry has no result to
// take addresses from, so that no pod starts.
func TestAnEntryThatWasWrittenWronglyIsPutRight(t *testing.T) {
	const gate, twice = `{"type": "podwall-gate", "timeout": "7s"}`, `{"type": "podwall-gate"}, `
	for name, plugins := range map[string]string{
		"twice": twice + `{"type": "bridge"}, ` + gate,
		"first": gate + `, {"type": "bridge"}`,
		"all":   twice + gate + `, {"type": "bridge"}`,
		"last":  `{"type": "bridge"}, ` + twice + gate,
	} {
		y := newYard(t)
		y.list("10-x.conflist", plugins)
		y.check(y.Install())
		if used := y.used(); !slices.Equal(used, []string{"bridge", Name}) {
			t.Errorf("%s: the plugins are %v", name, used)
		}
		if got := y.files()["10-x.conflist"]; !strings.Contains(got, `"7s"`) {
			t.Errorf("%s: the settings are lost:\n%s", name, got)
		}
		y.check(y.Uninstall())
		if used := y.used(); !slices.Equal(used, []string{"bridge"}) {
			t.Errorf("%s: after uninstall the plugins are %v", name, used)
		}
	}
}

// The library takes further plugins from a directory with the network's name. They run
// after the list, so an entry in the list would not be the last.
func TestPluginsInADirectory(t *testing.T) {
	y := newYard(t)
	y.list("10-x.conflist", `{"type": "bridge"}`)
	y.check(os.Mkdir(y.path("x"), 0o755))
	y.check(os.WriteFile(y.path("x/50-more.conf"), []byte(`{"type": "portmap"}`), 0o644))
	err := y.Install()
	if err == nil || !strings.Contains(err.Error(), "files in the directory x; write the entry by hand") {
		t.Errorf("error %v", err)
	}
	y.check(os.WriteFile(y.path("x/99-gate.conf"), []byte(`{"type": "podwall-gate"}`), 0o644))
	y.check(y.Install())
	y.check(y.statusOfDirectory())
	y.check(y.Uninstall())
	if !strings.Contains(y.out.String(), "left the entry podwall-gate in the directory x") {
		t.Errorf("said is\n%s", y.out)
	}
}

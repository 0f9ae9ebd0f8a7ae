// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
)

// yard is a directory of configurations and an installer for it.
type yard struct {
	Installer
	t   *testing.T
	out *bytes.Buffer
}

// newYard copies files of testdata under names of the form NN-file.
func newYard(t *testing.T, files ...string) yard {
	t.Helper()
	dir, out := t.TempDir(), &bytes.Buffer{}
	y := yard{t: t, out: out, Installer: Installer{ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin"),
		CacheDir: filepath.Join(dir, "cache"),
		Program:  filepath.Join(dir, "program"), Entry: Entry{Type: Name}, Out: out}}
	y.check(os.Mkdir(y.ConfDir, 0o755))
	y.check(os.WriteFile(y.Program, []byte("a program"), 0o755))
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join("testdata", f))
		y.check(err)
		y.check(os.WriteFile(y.path("10-"+f), data, 0o640))
	}
	for _, name := range []string{"bridge", "host-local", "ptp"} {
		y.plugin(name, "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0")
	}
	return y
}

// plugin makes a plugin that says which versions it speaks, and can do nothing else.
func (y yard) plugin(name string, versions ...string) {
	y.t.Helper()
	y.check(os.MkdirAll(y.BinDir, 0o755))
	script := fmt.Sprintf("#!/bin/sh\necho '{\"cniVersion\": \"1.0.0\", \"supportedVersions\": [\"%s\"]}'\n",
		strings.Join(versions, `", "`))
	y.check(os.WriteFile(filepath.Join(y.BinDir, name), []byte(script), 0o755))
}

// copyAs copies a file of testdata.
func (y yard) copyAs(name, file string) {
	y.t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	y.check(err)
	y.check(os.WriteFile(y.path(name), data, 0o640))
}

func (y yard) check(err error) {
	y.t.Helper()
	if err != nil {
		y.t.Fatal(err)
	}
}

// files returns all files by name, with their content.
func (y yard) files() map[string]string {
	y.t.Helper()
	entries, err := os.ReadDir(y.ConfDir)
	y.check(err)
	list := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(y.path(e.Name()))
		y.check(err)
		list[e.Name()] = string(data)
	}
	return list
}

// used returns the plugins' types of the configuration that a runtime takes,
// read with the runtimes' library.
func (y yard) used() []string {
	y.t.Helper()
	return usedIn(y.t, y.ConfDir)
}

// reporter is what usedIn needs of a test, also from another goroutine.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

func usedIn(t reporter, dir string) []string {
	t.Helper()
	_, types, err := containerdTakes(dir)
	for errors.Is(err, os.ErrNotExist) { // it went while we looked; runtimes look again too
		_, types, err = containerdTakes(dir)
	}
	if err != nil {
		t.Errorf("a runtime cannot use %s: %v", dir, err)
	}
	return types
}

// containerdTakes reads a directory with the runtimes' library as containerd does (its
// module go-cni, loadFromConfDir): it takes the first file by name, and gives up if that
// is broken. test/containerd holds this against containerd itself.
func containerdTakes(dir string) (file string, types []string, err error) {
	names, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil || len(names) == 0 {
		return "", nil, errors.Join(err, errors.New("there is no network"))
	}
	slices.Sort(names)
	list, err := load(names[0])
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", names[0], err)
	}
	for _, p := range list.Plugins {
		types = append(types, p.Network.Type)
	}
	return filepath.Base(names[0]), types, nil
}

func load(name string) (*libcni.NetworkConfigList, error) {
	if strings.HasSuffix(name, ".conflist") {
		return libcni.ConfListFromFile(name)
	}
	conf, err := libcni.ConfFromFile(name) //nolint:staticcheck // containerd reads such files this way
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(conf) //nolint:staticcheck // containerd reads such files this way
}

func networks() map[string][]string {
	return map[string][]string{
		"flannel.conflist": {"flannel", "portmap"},
		"calico.conflist":  {"calico", "portmap", "bandwidth"},
		"bridge.conflist":  {"bridge", "portmap", "firewall"},
		"ptp.conf":         {"ptp"},
		"kindnet.conflist": {"ptp", "portmap"},
		// As kube-router's DaemonSets write them: the former without its router, which needs
		// no cniVersion.
		"kuberouter.conf":     {"bridge"},
		"kuberouter.conflist": {"bridge"},
	}
}

func TestInstallAddsTheEntryAndUninstallRestoresEveryByte(t *testing.T) {
	for file, plugins := range networks() {
		t.Run(file, func(t *testing.T) {
			y := newYard(t, file)
			y.copyAs("99-loopback.conf", "loopback.conf")
			before := y.files()
			y.check(y.Install())
			if diff := cmp.Diff(append(slices.Clone(plugins), Name), y.used()); diff != "" {
				t.Errorf("plugins (-want +got):\n%s", diff)
			}
			installed := y.files()
			if kept := installed["10-"+file+original]; isList(file) && kept != before["10-"+file] {
				t.Errorf("the original is not kept byte for byte")
			}
			if now := installed["10-"+file]; !isList(file) && now != before["10-"+file] {
				t.Errorf("the file of a single plugin was changed:\n%s", now)
			}
			y.check(y.Install())
			if diff := cmp.Diff(installed, y.files()); diff != "" {
				t.Errorf("installing again (-first +second):\n%s", diff)
			}
			y.check(y.Uninstall())
			if diff := cmp.Diff(before, y.files()); diff != "" {
				t.Errorf("after uninstall (-before +after):\n%s", diff)
			}
			info, err := os.Stat(y.path("10-" + file))
			y.check(err)
			if info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, want the old one", info.Mode())
			}
			y.check(y.Uninstall())
		})
	}
}

// What is not ours means the same as before.
func TestInstallChangesNothingElse(t *testing.T) {
	for file := range networks() {
		y := newYard(t, file)
		before, err := load(y.path("10-" + file))
		y.check(err)
		y.check(y.Install())
		name, _, err := containerdTakes(y.ConfDir)
		y.check(err)
		after, err := load(y.path(name))
		y.check(err)
		if before.CNIVersion == "" {
			before.CNIVersion = chainVersion
		}
		if after.Name != before.Name || after.CNIVersion != before.CNIVersion || after.DisableCheck != before.DisableCheck {
			t.Errorf("%s: the network is %+v, was %+v", file, after, before)
		}
		for i, p := range before.Plugins {
			if diff := cmp.Diff(meaning(t, p.Bytes), meaning(t, after.Plugins[i].Bytes)); diff != "" {
				t.Errorf("%s: plugin %d (-before +after):\n%s", file, i, diff)
			}
		}
	}
}

// meaning decodes a plugin's configuration, without what the library adds to
// those of a list.
func meaning(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "name")
	delete(m, "cniVersion")
	return m
}

func TestTheFirstConfigurationIsTheOneThatCounts(t *testing.T) {
	y := newYard(t, "kindnet.conflist", "bridge.conflist")
	y.check(os.WriteFile(y.path("00-broken.conf"), []byte("{"), 0o644))
	y.check(os.WriteFile(y.path("00-notes.txt"), []byte("{"), 0o644))
	before := y.files()
	y.check(y.Install())
	y.check(os.Remove(y.path("00-broken.conf")))
	if got := y.used(); !slices.Contains(got, "bridge") || !slices.Contains(got, Name) {
		t.Errorf("plugins %v, want those of the bridge and ours", got)
	}
	if got := y.files()["10-kindnet.conflist"]; got != before["10-kindnet.conflist"] {
		t.Errorf("the second one was changed:\n%s", got)
	}
	if !strings.Contains(y.out.String(), "00-broken.conf") {
		t.Errorf("nothing is said of the broken file:\n%s", y.out)
	}
}

func TestUninstallKeepsWhatOthersChanged(t *testing.T) {
	y := newYard(t, "bridge.conflist")
	y.check(y.Install())
	changed := strings.Replace(y.files()["10-bridge.conflist"], `"cni0"`, `"cni7"`, 1)
	y.check(os.WriteFile(y.path("10-bridge.conflist"), []byte(changed), 0o644))
	y.check(y.Uninstall())
	if diff := cmp.Diff([]string{"bridge", "portmap", "firewall"}, y.used()); diff != "" {
		t.Errorf("plugins (-want +got):\n%s", diff)
	}
	files := y.files()
	if len(files) != 1 || !strings.Contains(files["10-bridge.conflist"], `"cni7"`) {
		t.Errorf("files %v, want the one with the change", files)
	}
}

func TestUninstallAfterTheNetworkWroteItsFileAgain(t *testing.T) {
	for _, file := range []string{"flannel.conflist", "ptp.conf"} {
		y := newYard(t, file)
		before := y.files()
		y.check(y.Install())
		y.check(os.WriteFile(y.path("10-"+file), []byte(before["10-"+file]), 0o640))
		y.check(y.Uninstall())
		if diff := cmp.Diff(before, y.files()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", file, diff)
		}
	}
}

func TestInstallAgainAfterTheNetworkWroteItsFileAgain(t *testing.T) {
	for file, plugins := range networks() {
		y := newYard(t, file)
		before := y.files()
		y.check(y.Install())
		newer := strings.Replace(before["10-"+file], "{", "{ ", 1)
		y.check(os.WriteFile(y.path("10-"+file), []byte(newer), 0o640))
		y.check(y.Install())
		if diff := cmp.Diff(append(slices.Clone(plugins), Name), y.used()); diff != "" {
			t.Errorf("%s: plugins (-want +got):\n%s", file, diff)
		}
		y.check(y.Uninstall())
		if diff := cmp.Diff(map[string]string{"10-" + file: newer}, y.files()); diff != "" {
			t.Errorf("%s: after uninstall, the newer one (-want +got):\n%s", file, diff)
		}
	}
}

func TestSettingsAreWrittenAndChanged(t *testing.T) {
	y := newYard(t, "calico.conflist")
	before := y.files()
	y.Entry.Timeout, y.Entry.OnTimeout = "10s", "refuse"
	y.check(y.Install())
	if got := y.files()["10-calico.conflist"]; !strings.Contains(got, `"timeout": "10s"`) || !strings.Contains(got, `"onTimeout": "refuse"`) {
		t.Errorf("settings are missing:\n%s", got)
	}
	y.Entry = Entry{Type: Name}
	y.check(y.Install())
	if got := y.files()["10-calico.conflist"]; !strings.Contains(got, `"10s"`) {
		t.Errorf("installing without settings changed those that were there:\n%s", got)
	}
	y.Entry.Timeout = "2s"
	y.check(y.Install())
	if got := y.files()["10-calico.conflist"]; !strings.Contains(got, `"2s"`) || strings.Contains(got, "10s") {
		t.Errorf("settings are not changed:\n%s", got)
	}
	y.check(y.Uninstall())
	if diff := cmp.Diff(before, y.files()); diff != "" {
		t.Errorf("after uninstall (-before +after):\n%s", diff)
	}
}

func TestWhatCannotBeInstalled(t *testing.T) {
	tests := []struct{ name, file, content, want string }{
		{"nothing there", "README", "", "no pod network"},
		{"only the loopback", "99-loopback.conf", `{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}`, "no pod network"},
		{"a plugin that is not there", "10-x.conf", `{"cniVersion": "0.2.0", "name": "x", "type": "none"}`,
			`10-x.conf: cniVersion: "0.2.0" has no chained plugins, and 0.3.1 cannot be used instead: failed to find plugin "none"`},
		{"a plugin that is old", "10-x.conf", `{"name": "x", "type": "old"}`, "old speaks [0.1.0 0.2.0] only; install a newer release"},
		{"addresses of an old plugin", "10-x.conf", `{"name": "x", "type": "bridge", "ipam": {"type": "old"}}`, "old speaks"},
		{"a plugin that fails", "10-x.conf", `{"name": "x", "type": "dead"}`, `write "cniVersion": "0.3.1" into the file's source`},
		{"a program elsewhere", "10-x.conf", `{"name": "x", "type": "../../x"}`, "invalid plugin name"},
		{"a list in a file for one plugin", "10-x.conf",
			`{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "bridge"}]}`, "no pod network"},
		{"nothing but the gate", "10-x.conflist",
			`{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "podwall-gate"}]}`, "10-x.conflist: plugins: there is none but podwall-gate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			y := newYard(t)
			y.plugin("old", "0.1.0", "0.2.0")
			y.check(os.WriteFile(filepath.Join(y.BinDir, "dead"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
			y.check(os.WriteFile(y.path(tt.file), []byte(tt.content), 0o644))
			if err := y.Install(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(map[string]string{tt.file: tt.content}, y.files()); diff != "" {
				t.Errorf("files (-before +after):\n%s", diff)
			}
		})
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// initContainer does what kube-router's init container does at each start: it copies the
// ConfigMap's file, unless the file is there.
func (y yard) initContainer(file string) {
	y.t.Helper()
	if _, err := os.Stat(y.path("10-" + file)); err == nil {
		return
	}
	y.copyAs("10-"+file, file)
}

// takes returns which file containerd takes, and the plugins' types.
func (y yard) takes() (string, []string) {
	y.t.Helper()
	file, types, err := containerdTakes(y.ConfDir)
	y.check(err)
	return file, types
}

// The gate stays in force whatever kube-router's init container finds, without another
// install: its .conf is never missing, and wherever it is, our list is before it.
func TestTheGateStaysWhenKubeRouterStartsAgain(t *testing.T) {
	for _, file := range []string{"kuberouter.conf", "kuberouter.conflist"} {
		for name, before := range map[string]func(y yard){
			"it starts again": func(yard) {},
			"its file was removed, as older releases of podwall did": func(y yard) {
				if !isList(file) {
					y.check(os.Remove(y.path("10-" + file)))
				}
			},
		} {
			y := newYard(t)
			y.initContainer(file)
			y.check(y.Install())
			before(y)
			for range 2 {
				y.initContainer(file)
				if used, types := y.takes(); !slices.Equal(types, []string{"bridge", Name}) {
					t.Errorf("%s, %s: containerd takes %s with the plugins %v", file, name, used, types)
				}
			}
		}
	}
}

// The review's node: kube-router's .conf comes beside the pod network's list, sorted
// before or after it. What counts gets the gate, and uninstall leaves both as they are.
func TestKubeRoutersFileBesideAnotherNetwork(t *testing.T) {
	for other, first := range map[string]string{"05-net.conflist": "flannel", "20-net.conflist": "bridge"} {
		y := newYard(t)
		y.copyAs(other, "flannel.conflist")
		y.check(y.Install())
		y.initContainer("kuberouter.conf")
		y.check(y.Install())
		if used, types := y.takes(); types[0] != first || !slices.Contains(types, Name) {
			t.Errorf("beside %s containerd takes %s with the plugins %v", other, used, types)
		}
		y.check(y.Uninstall())
		want := newYard(t)
		want.copyAs(other, "flannel.conflist")
		want.initContainer("kuberouter.conf")
		if diff := cmp.Diff(want.files(), y.files()); diff != "" {
			t.Errorf("beside %s after uninstall (-want +got):\n%s", other, diff)
		}
	}
}

// kube-router writes the node's range of addresses into its file. The list follows at the
// next install; status says until then that it does not.
func TestTheListFollowsTheFile(t *testing.T) {
	y := newYard(t, "kuberouter.conf")
	y.check(y.Install())
	y.Entry.Timeout = "9s"
	y.check(y.Install())
	y.Entry = Entry{Type: Name}
	changed := strings.Replace(y.files()["10-kuberouter.conf"], `"host-local"`, `"host-local", "subnet": "10.9.0.0/24"`, 1)
	y.check(os.WriteFile(y.path("10-kuberouter.conf"), []byte(changed), 0o640))
	err := y.statusOfDirectory()
	if err == nil || !strings.Contains(err.Error(), "differs from what 10-kuberouter.conf says now; run podwall-gate install") {
		t.Errorf("status: %v", err)
	}
	y.check(y.Install())
	y.check(y.statusOfDirectory())
	list := y.files()[besideName("10-kuberouter.conf")]
	if !strings.Contains(list, "10.9.0.0/24") || !strings.Contains(list, `"9s"`) {
		t.Errorf("the list has not the range, or lost the settings:\n%s", list)
	}
	y.check(y.Uninstall())
	if diff := cmp.Diff(map[string]string{"10-kuberouter.conf": changed}, y.files()); diff != "" {
		t.Errorf("after uninstall (-want +got):\n%s", diff)
	}
}

// A list of ours does not outlive its file, and not the file's being the first.
func TestTheListGoesWithItsFile(t *testing.T) {
	for name, change := range map[string]func(y yard){
		"the file goes": func(y yard) { y.check(os.Remove(y.path("10-kuberouter.conf"))) },
		"another network comes instead": func(y yard) {
			y.check(os.Remove(y.path("10-kuberouter.conf")))
			y.copyAs("10-kuberouter.conflist", "kuberouter.conflist")
		},
		"another network comes before it": func(y yard) { y.copyAs("05-net.conflist", "flannel.conflist") },
	} {
		y := newYard(t, "kuberouter.conf")
		y.check(y.Install())
		change(y)
		_ = y.Install() // without a network it says so
		for file := range y.files() {
			if strings.HasSuffix(file, besideEnd) {
				t.Errorf("%s: %s is still there", name, file)
			}
		}
		if len(y.files()) > 0 && !slices.Contains(y.used(), Name) {
			t.Errorf("%s: the plugins are %v", name, y.used())
		}
	}
}

// While its file is written, a list of ours is all that a runtime has.
func TestTheListStaysWhileItsFileIsWritten(t *testing.T) {
	y := newYard(t, "kuberouter.conf")
	y.check(y.Install())
	y.check(os.WriteFile(y.path("10-kuberouter.conf"), []byte("{"), 0o640))
	if err := y.Install(); !errors.Is(err, ErrNoNetwork) || !strings.Contains(y.out.String(), "runtimes cannot read 10-kuberouter.conf") {
		t.Errorf("error %v; said is\n%s", err, y.out)
	}
	if used := y.used(); !slices.Equal(used, []string{"bridge", Name}) {
		t.Errorf("the plugins are %v", used)
	}
	y.check(y.Uninstall())
	if files := y.files(); len(files) != 1 {
		t.Errorf("after uninstall there are %v", files)
	}
}

// Looking again says and runs nothing when all is as it should be.
func TestInstallAgainRunsNoPlugin(t *testing.T) {
	y := newYard(t, "kuberouter.conf")
	y.check(y.Install())
	y.check(os.Remove(filepath.Join(y.BinDir, "bridge")))
	y.out.Reset()
	y.check(y.Install())
	y.check(y.statusOfDirectory())
	if text := y.out.String(); strings.Contains(text, "cniVersion") {
		t.Errorf("said is\n%s", text)
	}
}

func TestAListOfSomebodyElseIsNotOverwritten(t *testing.T) {
	y := newYard(t, "ptp.conf")
	y.copyAs("20-"+besideName("x.conf"), "bridge.conflist") // sorts behind
	y.check(os.Rename(y.path("10-ptp.conf"), y.path("20-x.conf")))
	y.check(os.Rename(y.path("20-"+besideName("x.conf")), y.path("20-y.tmp")))
	y.check(y.Install())
	list := y.path(besideName("20-x.conf"))
	y.check(os.WriteFile(list, []byte("{"), 0o644))
	before := y.files()
	want := besideName("20-x.conf") + ", which is there and has no entry podwall-gate; remove one of the two"
	if err := y.Install(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
	if diff := cmp.Diff(before, y.files()); diff != "" {
		t.Errorf("files (-before +after):\n%s", diff)
	}
}

// Where the record of an older release says that a single plugin's file was replaced by
// a list, uninstall still restores it.
func TestUninstallRestoresWhatAnOlderReleaseReplaced(t *testing.T) {
	for _, again := range []bool{false, true} {
		y := newYard(t, "ptp.conf")
		before := y.files()
		list := `{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp"}, {"type": "podwall-gate"}]}`
		y.check(os.Rename(y.path("10-ptp.conf"), y.path("10-ptp.conf"+original)))
		y.check(os.WriteFile(y.path("10-ptp.conflist"), []byte(list), 0o640))
		y.check(os.WriteFile(y.path(recordName), []byte(`{"version": 1, "original": "10-ptp.conf", "mode": 416, `+
			`"installed": "10-ptp.conflist", "sha256": "`+digest([]byte(list))+`"}`), 0o600))
		if again {
			y.initContainer("ptp.conf")
		}
		y.check(y.Install())
		if used, types := y.takes(); !slices.Contains(types, Name) {
			t.Errorf("written again %t: containerd takes %s with the plugins %v", again, used, types)
		}
		y.check(y.Uninstall())
		if diff := cmp.Diff(before, y.files()); diff != "" {
			t.Errorf("written again %t: after uninstall (-before +after):\n%s", again, diff)
		}
	}
}

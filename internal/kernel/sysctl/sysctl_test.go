// SPDX-License-Identifier: Apache-2.0

//go:build linux

package sysctl_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/kernel/sysctl"
)

func TestSettingsAreReadWhereTheKernelShowsThem(t *testing.T) {
	for _, d := range []sysctl.Dir{"", sysctl.Default, "/proc/self/root/proc/sys"} {
		if err := d.Check(); err != nil {
			t.Errorf("%q: %v", d, err)
		}
		if v, err := d.Read("net/ipv4/ip_forward"); err != nil || len(v) != 1 {
			t.Errorf("%q: net/ipv4/ip_forward is %q (%v)", d, v, err)
		}
		if !d.Has("net/core") || d.Has("net/core/of-nobody") {
			t.Errorf("%q: it has not what every kernel has, or more", d)
		}
	}
}

// The kubelet creates a missing host path as an empty directory.
func TestADirectoryThatIsNoKernelsIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := sysctl.Dir(dir).Check(); err == nil ||
		!strings.Contains(err.Error(), filepath.Join(dir, "net/core")+": no such file") {
		t.Errorf("an empty directory: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "net/core"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := sysctl.Dir(dir).Check(); err == nil || !strings.Contains(err.Error(), "another file system") {
		t.Errorf("an ordinary directory: %v", err)
	}
}

func TestWritingMakesNoFile(t *testing.T) {
	dir := sysctl.Dir(t.TempDir())
	if err := dir.Write("value", "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a setting that is not there: %v", err)
	}
	if err := os.WriteFile(dir.Path("value"), []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dir.Write("value", "1"); err != nil {
		t.Error(err)
	}
	if v, err := dir.Read("value"); v != "1" || err != nil {
		t.Errorf("read back: %q (%v)", v, err)
	}
}

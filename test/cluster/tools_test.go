// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The programs of the pods' image run with nothing but its files, and the shell finds the right ones.
func TestToolsNeedNothingElse(t *testing.T) {
	files, links, err := tools()
	if errors.Is(err, ErrCannot) {
		t.Skip(err) // `make e2e` installs them
	}
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, from := range files {
		data, err := os.ReadFile(from)
		to := filepath.Join(root, name)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	for command, want := range map[string]string{"nc -h 2>&1": "OpenBSD netcat", "curl --version": "curl ", "wget --version": "GNU Wget",
		"echo $(seq 1 3)": "1 2 3", "busybox | head -1": "BusyBox"} {
		cmd := exec.Command("/bin/sh", "-c", command)
		cmd.Env, cmd.SysProcAttr = []string{"PATH=/:/usr/bin:/bin"}, &syscall.SysProcAttr{Chroot: root}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if errors.Is(err, os.ErrPermission) {
			t.Skip("a change of the root directory needs root")
		}
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", command, err, out)
		}
	}
}

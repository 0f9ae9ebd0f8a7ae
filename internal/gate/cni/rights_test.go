// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWhatAContainerMayNotWriteIsExplained(t *testing.T) {
	dir := t.TempDir()
	mine, others := filepath.Join(dir, "10-mine.conf"), filepath.Join(dir, "10-others.conf")
	for _, name := range []string{mine, others} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	type test struct {
		path string
		err  error
		want string
	}
	tests := map[string]test{
		"no mount":       {mine, syscall.EROFS, "mount the node's directory " + dir},
		"own file":       {mine, syscall.EACCES, "SELinux or AppArmor"},
		"no file at all": {mine + "/x", syscall.EACCES, "SELinux or AppArmor"},
		"no room":        {mine, syscall.ENOSPC, ""},
	}
	if os.Chown(others, 995, 995) == nil { // root may
		tests["another's file"] = test{others, syscall.EACCES, others + " belongs to user 995"}
	}
	for name, tt := range tests {
		err := explained(tt.path, &fs.PathError{Op: "open", Path: tt.path, Err: tt.err})
		if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) || tt.want == "" && strings.Contains(err.Error(), ";") {
			t.Errorf("%s: %v, want %q added", name, err, tt.want)
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// explained adds what to do where a file of the node cannot be read or written: the
// installer runs in a container, as a rule.
func explained(path string, err error) error {
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w; mount the node's directory %s into this container, writable (hostPath)", err, dir)
	case !errors.Is(err, fs.ErrPermission):
		return err
	}
	for _, of := range []string{path, dir} {
		if info, stat := os.Stat(of); stat == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) != os.Geteuid() {
				return fmt.Errorf("%w; %s belongs to user %d and this process is user %d: "+
					"add DAC_OVERRIDE to the container's capabilities, or give it to user %d",
					err, of, s.Uid, os.Geteuid(), os.Geteuid())
			}
		}
	}
	return fmt.Errorf("%w; a profile of SELinux or AppArmor may forbid it", err)
}

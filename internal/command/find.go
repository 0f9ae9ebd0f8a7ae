// SPDX-License-Identifier: Apache-2.0

package command

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Next returns the path of a program in this program's directory, or "" if there is none.
func Next(name string) string {
	self, err := os.Executable()
	if err != nil {
		return ""
	}
	path, err := exec.LookPath(filepath.Join(filepath.Dir(self), name))
	if err != nil {
		return ""
	}
	return path
}

// Find returns the absolute path of a program: named, unless that is empty, else the one next to
// this program, else the one in PATH. named may be a path or a name in PATH.
func Find(name, named string) (string, error) {
	if named == "" {
		if path := Next(name); path != "" {
			return path, nil
		}
		named = name
	}
	path, err := exec.LookPath(named)
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", name, err)
	}
	return filepath.Abs(path)
}

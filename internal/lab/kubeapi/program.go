// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubeapi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// ProgramEnv names the environment variable that says where the program is.
const ProgramEnv = "PODWALL_KUBEAPI"

// ErrNotBuilt is the error when there is no program to start.
var ErrNotBuilt = errors.New("the test API server is not built: run `make kubeapi`, or set " + ProgramEnv)

// Program returns the path of the program: what PODWALL_KUBEAPI says, else
// bin/kubeapi beside the nearest go.mod above the working directory, which for
// a test is the package's own. A path in the environment that is wrong is an
// error of its own and not ErrNotBuilt: somebody meant something by it.
func Program() (string, error) {
	if path := os.Getenv(ProgramEnv); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("reading %s: %w", ProgramEnv, err)
		}
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "kubeapi")
	_, err = os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", ErrNotBuilt
	}
	return path, err
}

func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("looking for go.mod: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("looking for go.mod: none above %s: %w", start, ErrNotBuilt)
		}
	}
}

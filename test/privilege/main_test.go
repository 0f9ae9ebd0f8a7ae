// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// patience is how long something may take that is right in the end. Nobody waits
// for it when all is well.
const patience = 60 * time.Second

// root is the top of the repository, seen from this package.
const root = "../.."

const (
	gateVariable  = "PODWALL_GATE"
	imageVariable = "PODWALL_PRIVILEGE_IMAGE" // the programs, which all containers share
)

// TestMain runs the tests in a world of their own, against the agent that is
// built.
func TestMain(m *testing.M) {
	entry.Main(m, containers, entry.BuiltAgent(root), entry.Fresh(gateVariable, root+"/cmd/podwall-gate"), image)
}

// containers wants what it takes to make some.
func containers() (func() error, error) {
	if _, err := exec.LookPath("runc"); err != nil {
		return nil, fmt.Errorf("runc is missing, run `make prepare`: %w", fs.ErrNotExist)
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(users)), " 4294967295") {
		return nil, fmt.Errorf("containers need root, and all users: %w", fs.ErrNotExist)
	}
	return nil, nil
}

// check fails the test at once. It is for what must work before anything can be
// tested.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shortly ends soon: for what must not come about.
func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %s", what, patience)
		}
	}
}

// image makes copies of the programs, to which the containers have links.
func image() (remove func() error, err error) {
	dir, err := os.MkdirTemp("", "podwall-image-")
	if err != nil {
		return nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	for to, from := range map[string]string{"podwall-agent": entry.AgentVariable, "podwall-gate": gateVariable} {
		err = errors.Join(err, copyFile(os.Getenv(from), filepath.Join(dir, to)))
	}
	if err = errors.Join(err, os.Setenv(imageVariable, dir)); err != nil {
		return nil, errors.Join(err, remove())
	}
	return remove, nil
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o755)
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podwall/podwall/tools/internal/programs"
)

const (
	testVersion = "v1.2.3-4-gabcdef"
	testTag     = "1.2.3"
)

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// made is the directory that the tests read images from.
var made string

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the image once for all tests.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "podwall-image-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	made = filepath.Join(dir, "made")
	if err := buildFrom(filepath.Join(dir, "source"), made); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// buildFrom copies the repository to a directory and builds the image there.
func buildFrom(root, out string) error {
	if err := copyRepository(root); err != nil {
		return fmt.Errorf("copying the repository: %w", err)
	}
	o := options{root: root, out: out, version: testVersion, revision: "abcdef", tag: testTag, created: testTime}
	return o.run(context.Background())
}

// copyRepository copies what the programs are built from.
func copyRepository(to string) error {
	for _, name := range []string{"go.mod", "go.sum", "LICENSE", "cmd", "internal"} {
		from := filepath.Join("../..", name)
		info, err := os.Stat(from)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = os.CopyFS(filepath.Join(to, name), os.DirFS(from))
		} else if err = os.MkdirAll(to, 0o755); err == nil {
			var text []byte
			if text, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(filepath.Join(to, name), text, 0o644)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// The second build has another directory and another environment. A build with
// an empty cache takes minutes, so it is done in the long runs only.
func TestTwoBuildsAreEqual(t *testing.T) {
	dir := t.TempDir()
	for name, value := range map[string]string{"GOAMD64": "v3", "GOARM64": "v8.2", "GOFLAGS": "-tags=other", "CGO_ENABLED": "1",
		"TZ": "Asia/Tokyo", "LC_ALL": "C"} {
		t.Setenv(name, value)
	}
	if os.Getenv("PODWALL_SOAK") != "" {
		t.Setenv("GOCACHE", filepath.Join(dir, "cache"))
	}
	defer syscall.Umask(syscall.Umask(0o077))
	out := filepath.Join(dir, "out")
	if err := buildFrom(filepath.Join(dir, "a", "much", "longer", "path"), out); err != nil {
		t.Fatal(err)
	}
	first, second := contents(t, made), contents(t, out)
	if names := slices.Sorted(maps.Keys(first)); len(names) != 8 || !slices.Equal(names, slices.Sorted(maps.Keys(second))) {
		t.Errorf("files: %q and %q, want the same 8", names, slices.Sorted(maps.Keys(second)))
	}
	for name, text := range first {
		if !bytes.Equal(text, second[name]) {
			t.Errorf("%s: two builds of one source differ", name)
		}
	}
}

// contents reads all files below a directory.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, pattern := range []string{"*.tar", "*.json", "*/*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		check(t, err)
		for _, name := range names {
			text, err := os.ReadFile(name)
			check(t, err)
			rel, err := filepath.Rel(dir, name)
			check(t, err)
			files[rel] = text
		}
	}
	return files
}

// Whatever the machine is, arm64's programs start once: by themselves, or in an
// emulator of user programs.
func TestTheProgramsStart(t *testing.T) {
	for _, arch := range programs.Architectures() {
		for _, name := range programs.Node() {
			t.Run(arch+"/"+name, func(t *testing.T) {
				program := filepath.Join(t.TempDir(), name)
				check(t, os.WriteFile(program, unpacked(t, arch)["usr/bin/"+name].text, 0o755))
				out, err := command(t, arch, program, "--version").CombinedOutput()
				if got, want := strings.TrimSpace(string(out)), name+" "+testVersion; err != nil || got != want {
					t.Errorf("--version: %q, %v, want %q", got, err, want)
				}
			})
		}
	}
}

func TestABadVersionIsRefused(t *testing.T) {
	for _, v := range []string{"", "-X", "1 2", "v1'", "a/b"} {
		err := options{root: "../..", out: t.TempDir(), version: v, tag: testTag}.run(t.Context())
		if err == nil || !strings.Contains(err.Error(), "version") {
			t.Errorf("version %q: %v, want an error that says so", v, err)
		}
	}
}

// command returns the call of a program for arch, or skips.
func command(t *testing.T, arch, program string, args ...string) *exec.Cmd {
	t.Helper()
	if arch == runtime.GOARCH {
		return exec.CommandContext(t.Context(), program, args...)
	}
	emulator := map[string]string{"arm64": "qemu-aarch64-static", "amd64": "qemu-x86_64-static"}[arch]
	path, err := exec.LookPath(emulator)
	switch {
	case err != nil && os.Getenv("CI") == "true":
		t.Fatalf("%s is missing: see hack/prepare", emulator)
	case err != nil:
		t.Skipf("%s is missing: install qemu-user-static", emulator)
	}
	return exec.CommandContext(t.Context(), path, append([]string{program}, args...)...)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

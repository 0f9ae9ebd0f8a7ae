// SPDX-License-Identifier: Apache-2.0

// Package programs builds podwall's programs, for the image and for a release,
// so that the same source, version and Go give the same bytes on any machine.
// It owns the list of programs and architectures that are released.
package programs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// Architectures are those that podwall is released for, as Go names them.
func Architectures() []string { return []string{"amd64", "arm64"} }

// version is what may stand in a linker flag and in the name of a file.
var version = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// CheckVersion returns an error unless v can be the version of a program.
func CheckVersion(v string) error {
	if !version.MatchString(v) {
		return fmt.Errorf("version %q: want letters, digits and . _ + - only, as `git describe` prints", v)
	}
	return nil
}

// Build writes static programs for Linux on arch into the directory out. Names
// are those of the directories below cmd in root, the top of the repository.
func Build(ctx context.Context, root, version, arch, out string, names ...string) error {
	if err := CheckVersion(version); err != nil {
		return err
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=" + version,
		"-o", out + "/"}
	for _, name := range names {
		args = append(args, "./cmd/"+name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = root, Environment(arch), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building for %s: %w", arch, err)
	}
	return nil
}

// Environment returns the environment of go for Linux on arch. What a machine
// sets to make other bytes out of the same source is set back.
func Environment(arch string) []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
}

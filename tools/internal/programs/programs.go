// SPDX-License-Identifier: Apache-2.0

// Package programs builds podwall's programs, for the image and for a release,
// so that the same source, version and Go give the same bytes on any machine.
// It owns the list of programs and systems that are released.
package programs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// Plugin is the program for people's machines: a plugin of kubectl.
const Plugin = "kubectl-podwall"

// Lab is the one program for Linux that is neither in the image nor a plugin.
const Lab = "podwall-lab"

// System is an operating system on an architecture, as Go names them.
type System struct{ OS, Arch string }

func (s System) String() string { return s.OS + "-" + s.Arch }

// Linux returns the system of a node.
func Linux(arch string) System { return System{"linux", arch} }

// File returns the name of a program's file.
func (s System) File(program string) string {
	if s.OS == "windows" {
		return program + ".exe"
	}
	return program
}

// Architectures are those of nodes that podwall is released for.
func Architectures() []string { return []string{"amd64", "arm64"} }

// Systems are all that something is released for: those of nodes first, then
// further ones of people's machines.
func Systems() (list []System) {
	for _, arch := range Architectures() {
		list = append(list, Linux(arch))
	}
	return append(list, System{"darwin", "amd64"}, System{"darwin", "arm64"}, System{"windows", "amd64"})
}

// Node returns the programs that run on a node; the image has them all.
func Node() []string { return []string{"podwall-agent", "podwall-gate"} }

// Released returns the programs that are released for a system.
func Released(s System) []string {
	if s.OS != "linux" {
		return []string{Plugin}
	}
	return slices.Concat(Node(), []string{Lab, Plugin})
}

// version is what may stand in a linker flag and in the name of a file.
var version = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]*$`)

// CheckVersion returns an error unless v can be the version of a program.
func CheckVersion(v string) error {
	if !version.MatchString(v) {
		return fmt.Errorf("version %q: want letters, digits and . _ + - only, as `git describe` prints", v)
	}
	return nil
}

// Build writes static programs for a system into the directory out. Names are
// those of the directories below cmd in root, the top of the repository.
func Build(ctx context.Context, root, version string, s System, out string, names ...string) error {
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
	cmd.Dir, cmd.Env, cmd.Stderr = root, Environment(s), os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building for %s: %w", s, err)
	}
	return nil
}

// Environment returns the environment of go for a system. What a machine sets
// to make other bytes out of the same source is set back.
func Environment(s System) []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOOS="+s.OS, "GOARCH="+s.Arch, "GOAMD64=v1", "GOARM64=v8.0",
		"GOFLAGS=-mod=readonly", "GOEXPERIMENT=", "GOFIPS140=off", "GOWORK=off")
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/podwall/podwall/test/cluster"
)

// olderCommit stands for an older release: the first commit with a chart. Since
// then the agent has learnt to open a node, to name rights that a container
// lacks, and to uninstall; the gate's protocol is the same.
const olderCommit = "9b21619b566c4635e7f0fa992b8664535b28f926"

// olderImage is the name of its image.
const olderImage = "podwall/podwall:older"

// release is what is installed of a commit.
type release struct {
	root  string // its source, with the chart
	image string // archive
	gate  string // program
}

// older builds the older release, from what git has of it. It is built once.
func (s *settings) older(ctx context.Context) (release, error) {
	root := s.work("older-" + olderCommit[:12])
	bin := filepath.Join(root, "bin")
	r := release{root: root, image: filepath.Join(bin, "older.tar"), gate: filepath.Join(bin, "podwall-gate")}
	if _, err := os.Stat(r.image); err == nil {
		return r, nil
	}
	source := root + ".tar"
	err := os.MkdirAll(bin, 0o755)
	for _, command := range [][]string{
		{"git", "-C", s.root, "archive", "--format=tar", "-o", source, olderCommit},
		{"tar", "-xf", source, "-C", root},
		{"go", "build", "-C", root, "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=older",
			"-o", bin + "/",
			"./cmd/podwall-agent", "./cmd/podwall-gate"},
	} {
		if err != nil {
			break
		}
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, failed := cmd.CombinedOutput(); failed != nil {
			err = fmt.Errorf("building the older release %s, which needs the whole history: %s: %w: %s", olderCommit,
				command[0], failed, text)
		}
	}
	if err != nil {
		return r, err
	}
	programs := cluster.Image{Name: olderImage, Files: map[string]string{}, Entrypoint: "/usr/bin/podwall-agent"}
	for _, name := range []string{"podwall-agent", "podwall-gate"} {
		programs.Files["usr/bin/"+name] = filepath.Join(bin, name)
	}
	return r, errors.Join(programs.Write(r.image), os.Remove(source))
}

// withOlder builds the older release and gives every node its image.
func (t *trial) withOlder(ctx context.Context) (release, error) {
	r, err := t.settings.older(ctx)
	for _, n := range t.Nodes() {
		if err == nil {
			err = n.Import(ctx, r.image)
		}
	}
	return r, err
}

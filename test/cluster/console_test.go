// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/podwall/podwall/test/cluster"
)

// transcript is where the commands of an installation and what they print are
// written to: the README has them.
const transcript = "PODWALL_TRANSCRIPT"

// console runs commands as an operator does, at the top of the repository, and
// keeps what they print.
type console struct {
	t    *testing.T
	c    *cluster.Cluster
	path string
	text strings.Builder
}

func newConsole(t *testing.T, c *cluster.Cluster) *console {
	t.Helper()
	k := &console{t: t, c: c, path: t.TempDir()}
	program, err := filepath.Abs(filepath.Join(root, "bin", "kube"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(k.path, "kubectl"), []byte("#!/bin/sh\nexec "+program+" kubectl \"$@\"\n"), 0o755))
	for _, name := range []string{"kubectl-podwall", "helm"} {
		program, err := filepath.Abs(filepath.Join(root, "bin", name))
		check(t, err)
		check(t, os.Symlink(program, filepath.Join(k.path, name)))
	}
	return k
}

func (k *console) load(archive string) {
	k.t.Helper()
	for _, n := range k.c.Nodes() {
		check(k.t, n.Import(k.t.Context(), archive))
		fmt.Fprintf(&k.text, "%s# ctr -n k8s.io images import %s\n", n.Name, filepath.Base(archive))
	}
}

// run runs a line of a shell to its end, which must be a good one, and returns what it prints.
func (k *console) run(line string) string {
	k.t.Helper()
	cmd, start := k.c.Command(k.t.Context(), "sh", "-c", line)
	cmd.Dir = root
	cmd.Env = append(cmd.Env, "PATH="+k.path+":"+os.Getenv("PATH"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := start()
	if err == nil {
		err = cmd.Wait()
	}
	fmt.Fprintf(&k.text, "$ %s\n%s", line, &out)
	if err != nil {
		pods, _ := k.c.Kubectl(k.t.Context(), "", "get", "pods,events", "-A", "-o", "wide") // for the reader only
		k.t.Fatalf("%v\n%s\n%s", err, &k.text, pods)
	}
	return out.String()
}

// save keeps the transcript, if anybody wants it.
func (k *console) save() {
	k.t.Helper()
	k.t.Logf("\n%s", &k.text)
	if file := os.Getenv(transcript); file != "" {
		check(k.t, os.WriteFile(file, []byte(k.text.String()), 0o644))
	}
}

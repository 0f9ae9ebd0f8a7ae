// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// Command lines of kubectl are read by kubectl, and those of its command podwall by ours,
// which print their help instead of doing them.
func TestLinesOfKubectlAreKnown(t *testing.T) {
	program, err := filepath.Abs(filepath.Join(root, "bin", "kube"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("%v: make kube builds it", err)
	}
	seen := map[string]bool{}
	for _, p := range pages(t) {
		for _, words := range linesOf(t, p, "kubectl") {
			args := words[1:]
			if i := slices.Index(args, "--"); i >= 0 {
				args = args[:i]
			}
			if seen[args[0]] = true; args[0] == "podwall" {
				if err := pluginTakes(args[1:]); err != nil {
					t.Errorf("%s: %q: %v", p.name, words, err)
				}
				continue
			}
			if args[0] == "krew" {
				if err := krewTakes(args[1:]); err != nil {
					t.Errorf("%s: %q: %v", p.name, words, err)
				}
				continue
			}
			out, err := exec.Command(program, append([]string{"kubectl"}, append(args, "--help")...)...).CombinedOutput()
			if err != nil {
				t.Errorf("%s: %q: %v\n%s", p.name, words, err, out)
			}
		}
	}
	if len(seen) < 4 {
		t.Errorf("only %d kinds of lines", len(seen))
	}
}

// linesOf returns the command lines of a program in the blocks of a page.
func linesOf(t *testing.T, p page, program string) (list [][]string) {
	t.Helper()
	blocks, _ := p.blocks()
	for _, b := range blocks {
		words, err := b.commands()
		if err != nil {
			t.Error(err)
		}
		for _, w := range words {
			if w[0] == program && len(w) > 1 {
				list = append(list, w)
			}
		}
	}
	return list
}

// krewTakes has krew, a plugin of kubectl, read a command line and print its help.
func krewTakes(args []string) error {
	home, err := os.MkdirTemp("", "podwall-krew-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	cmd := exec.Command("go", append([]string{"tool", "-C", root + "/tools", "krew"}, append(args, "--help")...)...)
	cmd.Env = append(os.Environ(), "KREW_ROOT="+home, "KREW_NO_UPGRADE_CHECK=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

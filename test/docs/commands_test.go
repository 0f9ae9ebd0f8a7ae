// SPDX-License-Identifier: Apache-2.0

//go:build linux

package docs

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/kubectl"
	"github.com/podwall/podwall/internal/lab/cli"
)

// ours says how a command line of a program of this repository is judged.
func ours() map[string]func(args []string) error {
	return map[string]func([]string) error{"podwall-agent": agentTakes, "podwall-lab": labTakes, "podwall-gate": gateTakes,
		"kubectl-podwall": pluginTakes, "make": makeTakes, "helm": helmTakes}
}

// others are the programs of others, each with the reason why its command line is not
// judged here. Files of the repository among the arguments must exist, and a command line
// of ours behind them is judged.
func others() map[string]string {
	const standard = "every system has it, and its own manual"
	return map[string]string{
		"kubectl": "judged by TestLinesOfKubectlAreKnown, where the program is built",
		"crictl":  "no module has its commands", "ctr": "no module has its commands",
		"curl": standard, "cp": standard, "echo": standard, "git": standard, "go": standard, "grep": standard, "ls": standard, "mkdir": standard,
		"modprobe": standard, "nft": standard, "sh": standard, "sha256sum": standard, "ssh-keygen": standard, "tail": standard,
	}
}

// judge returns what is wrong with a command line.
func judge(words []string) error {
	name := filepath.Base(words[0])
	if takes, ok := ours()[name]; ok {
		if err := takes(words[1:]); err != nil {
			return fmt.Errorf("%q: %w", strings.Join(words, " "), err)
		}
		return nil
	}
	if _, ok := others()[name]; !ok {
		return fmt.Errorf("%q: nobody judges %s: add it to a table in commands_test.go", strings.Join(words, " "), name)
	}
	for i, w := range words[1:] {
		if _, ok := ours()[w]; ok && strings.HasPrefix(w, "podwall-") && len(words) > i+2 {
			return judge(words[i+1:])
		}
		if err := exists(w); err != nil {
			return fmt.Errorf("%q: %w", strings.Join(words, " "), err)
		}
	}
	return nil
}

// agentTakes reads a command line as the agent does.
func agentTakes(args []string) error {
	var out bytes.Buffer
	_, _, err := config.Parse(args, func(string) string { return "node1" }, &out)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

// pluginTakes has kubectl-podwall read a command line and print its help instead of doing
// it.
func pluginTakes(args []string) error {
	var out, stderr bytes.Buffer
	if len(args) > 0 && args[0] == "__complete" { // it has no help
		return nil
	}
	if status := kubectl.Run(context.Background(), "test", append(slices.Clone(args), "--help"),
		kubectl.Streams{Out: &out, Err: &stderr}); status != 0 || !strings.Contains(out.String(), "Usage:") {
		return fmt.Errorf("%s%s", &stderr, &out)
	}
	return nil
}

// labTakes has podwall-lab read a command line and print its help instead of doing it.
func labTakes(args []string) error {
	var out, stderr bytes.Buffer
	if status := cli.Run(context.Background(), "test", append(slices.Clone(args), "--help"),
		cli.Streams{In: strings.NewReader(""), Out: &out, Err: &stderr}); status != 0 {
		return errors.New(strings.TrimSpace(stderr.String()))
	}
	usage := regexp.MustCompile(`(?m)^  podwall-lab[a-z ]*`).FindString(out.String())
	for _, command := range args {
		if strings.HasPrefix(command, "-") || !regexp.MustCompile(`^[a-z]+$`).MatchString(command) {
			break
		}
		if slices.Contains(strings.Fields(usage), command) {
			continue
		}
		if !strings.Contains(out.String(), command) { // a group of measurements
			return fmt.Errorf("the help of%s does not know %s", strings.TrimPrefix(usage, " "), command)
		}
	}
	return nil
}

// built is the directory of the programs; empty until they are built.
var built string

// programs builds the programs once, and returns their directory.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "podwall-docs-")
	if err != nil {
		return "", err
	}
	built = dir
	out, err := exec.Command("go", "build", "-o", dir+"/", root+"/cmd/...").CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
})

// removePrograms removes what was built, if anything was.
func removePrograms() error {
	if built == "" {
		return nil
	}
	return os.RemoveAll(built)
}

// gateTakes has podwall-gate read a command line and print its help instead of doing it.
func gateTakes(args []string) error {
	dir, err := programs()
	if err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(dir, "podwall-gate"), append(slices.Clone(args), "--help")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

var (
	target   = regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`)
	variable = regexp.MustCompile(`\$[({](?:value )?([A-Z_0-9]+)[)}]`)
)

// makeTakes looks a command line's targets and variables up in the Makefile.
func makeTakes(args []string) error {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return err
	}
	has := func(pattern *regexp.Regexp, name string) bool {
		return slices.ContainsFunc(pattern.FindAllStringSubmatch(string(text), -1), func(m []string) bool { return m[1] == name })
	}
	for _, a := range args {
		name, _, sets := strings.Cut(a, "=")
		switch {
		case sets && !has(variable, name):
			return fmt.Errorf("the Makefile asks for no variable %s", name)
		case !sets && !has(target, name):
			return fmt.Errorf("the Makefile has no target %s", name)
		}
	}
	return nil
}

// helmTakes judges by what the pages need of helm 4: its commands as a library bring 57
// more modules along.
func helmTakes(args []string) error {
	flags := []string{"-n", "--namespace", "-f", "--values", "--set", "--timeout", "--wait", "--no-hooks",
		"--create-namespace", "--show-only", "--take-ownership",
		"--server-side", "--reuse-values"}
	if !slices.Contains([]string{"install", "upgrade", "rollback", "uninstall", "template"}, args[0]) {
		return fmt.Errorf("helm %s is in no page yet: add it to helmTakes", args[0])
	}
	for _, a := range args[1:] {
		if name, _, _ := strings.Cut(a, "="); strings.HasPrefix(a, "-") && !slices.Contains(flags, name) {
			return fmt.Errorf("helm's flag %s is in no page yet: add it to helmTakes", name)
		}
		if err := exists(a); err != nil {
			return err
		}
	}
	return nil
}

// The folders at the top of the repository: what begins so is a path in it.
var inRepository = regexp.MustCompile(`^(cmd|deploy|docs|examples|hack|internal|test|testdata|tools)/[^ ]*$`)

// exists returns an error for a path in the repository at which there is nothing. A page
// may write a pattern, and it may name a package by its folder, or a function or a test by
// its package.
func exists(word string) error {
	word = strings.TrimSuffix(word, "...")
	if !inRepository.MatchString(word) || strings.ContainsAny(word, "…<>{}") {
		return nil
	}
	for _, pattern := range []string{word, "internal/*/" + word, "internal/*/*/" + word} { // testdata of a package that the text names
		if found, err := filepath.Glob(filepath.Join(root, pattern)); err == nil && len(found) > 0 {
			return nil
		}
	}
	return fmt.Errorf("there is nothing at %s", word)
}

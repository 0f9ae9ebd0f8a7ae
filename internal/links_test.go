// SPDX-License-Identifier: Apache-2.0

package internal_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// closure is what a program must not link, beside what the layers refuse to each
// package: an enforcement agent carries no scaffolding, and the gate, which a
// runtime starts for every pod, no client of Kubernetes.
type closure struct {
	program string
	never   []string
	reason  string
}

func closures() []closure {
	scaffolding := append(ours("lab", "netpol/oracle"), "testing", "gonum.org", "golang.org/x/perf", "github.com/spf13/cobra",
		"pgregory.net/rapid")
	return []closure{
		{"podwall-agent", scaffolding, "what serves tests and measurements is not on a node"},
		{"podwall-gate", append(scaffolding, "k8s.io", "sigs.k8s.io", "github.com/prometheus"),
			"it must start in milliseconds, and asks nobody but the agent"},
		{"podwall-lab", append(ours("lab/testkit"), "testing", "pgregory.net/rapid", "github.com/google/go-cmp"),
			"it is a program for people and not a test"},
		{"kubectl-podwall", append(ours("lab", "netpol/oracle", "agent", "datapath"), "testing", "pgregory.net/rapid",
			"github.com/google/go-cmp", "github.com/vishvananda"), "it answers questions and touches no kernel"},
	}
}

// Every program below cmd has a closure, and keeps it.
func TestProgramsLinkNothingOfTheScaffolding(t *testing.T) {
	out, err := exec.Command("go", "list", "../cmd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, c := range closures() {
		told = append(told, module+"cmd/"+c.program)
		deps, err := exec.Command("go", "list", "-deps", "../cmd/"+c.program).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range strings.Fields(string(deps)) {
			if within(path, c.never) {
				t.Errorf("%s links %s: %s", c.program, path, c.reason)
			}
		}
	}
	for _, p := range strings.Fields(string(out)) {
		if !slices.Contains(told, p) {
			t.Errorf("nobody says what %s must not link", p)
		}
	}
}

// What runs on any operating system has no driver below it there: decisions, which are
// made and tested on all, and kubectl-podwall, which is released for people's machines.
// What of it needs Linux is in files with a build constraint.
func TestWhatRunsAnywhereNeedsNoKernel(t *testing.T) {
	drivers := append(ours("kernel", "datapath"), "github.com/google/nftables", "github.com/vishvananda",
		"github.com/mdlayher")
	for _, tt := range []struct {
		args  []string
		never []string
	}{
		{[]string{"-test", "./netpol/decide"}, append(drivers, "golang.org/x/sys/unix")},
		{[]string{"../cmd/kubectl-podwall"}, drivers}, // clients of Kubernetes use unix for terminals
	} {
		for _, system := range []string{"darwin", "windows"} {
			cmd := exec.Command("go", append([]string{"list", "-deps"}, tt.args...)...)
			cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v cannot be built for %s: %v\n%s", tt.args, system, err, out)
			}
			for _, path := range strings.Fields(string(out)) {
				if within(path, tt.never) {
					t.Errorf("for %s %v needs %s: put what needs it into a file for Linux (//go:build linux)",
						system, tt.args, path)
				}
			}
		}
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package xtables

import (
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

func TestMain(m *testing.M) { entry.Try(m) }

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func read(t *testing.T, r *Reader, step string, want ...Table) {
	t.Helper()
	got, err := r.Read("filter")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", step, diff)
	}
}

func TestChainsAreListedWhereATableIsInUse(t *testing.T) {
	if _, err := exec.LookPath("iptables-legacy"); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	apart.Run(t, func(t *testing.T) {
		r := &Reader{}
		read(t, r, "nothing is in use")
		run(t, "iptables-legacy", "-t", "nat", "-N", "ELSEWHERE")
		read(t, r, "another table is in use")
		run(t, "iptables-legacy", "-N", "FIRST")
		run(t, "iptables-legacy", "-A", "FIRST", "-p", "tcp", "-m", "comment", "--comment", "ERROR", "-j", "DROP")
		first := Table{"ip", "filter", []string{"FIRST"}}
		read(t, r, "a chain with a rule", first)
		read(t, r, "the same again", first)
		run(t, "iptables-legacy", "-N", "SECOND")
		run(t, "ip6tables-legacy", "-N", "SIXTH")
		both := []Table{{"ip", "filter", []string{"FIRST", "SECOND"}}, {"ip6", "filter", []string{"SIXTH"}}}
		read(t, r, "both families", both...)
		read(t, &Reader{}, "a new reader", both...)
		run(t, "ip6tables-legacy", "-X", "SIXTH")
		read(t, r, "a chain less", both[0], Table{"ip6", "filter", []string{}})
	})
}

// A table that did not change its size is not copied out of the kernel again.
func TestATableOfTheSameSizeIsRemembered(t *testing.T) {
	if _, err := exec.LookPath("iptables-legacy"); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	apart.Run(t, func(t *testing.T) {
		r := &Reader{}
		run(t, "iptables-legacy", "-N", "BEFORE")
		read(t, r, "at first", Table{"ip", "filter", []string{"BEFORE"}})
		run(t, "iptables-legacy", "-E", "BEFORE", "AFTER")
		read(t, r, "renamed, as kube-router's sync does", Table{"ip", "filter", []string{"BEFORE"}})
		read(t, &Reader{}, "a new reader", Table{"ip", "filter", []string{"AFTER"}})
	})
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package nftrun runs the nft program in network namespaces of tests. It is a reference that is
// independent of our own encoding, and never works in the root namespace.
package nftrun

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
)

// Namespace returns a network namespace of the test. Without the right to make one
// the test is skipped, but not in CI.
func Namespace(t testing.TB) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() }) // its file descriptor only
	return ns
}

// Run runs the nft program and returns what it prints.
func Run(t testing.TB, ns *netns.NS, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("nft", args...)
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := ns.Start(cmd); err != nil {
		t.Fatalf("nft is needed (Debian package nftables): %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft %v: %v\n%s\n%s", args, err, out.String(), stdin)
	}
	return out.String()
}

// Lines makes listings comparable: the order of elements inside a hash is the
// kernel's.
func Lines(listing string) []string {
	text := strings.NewReplacer("elements = {", "", "}", "", ",", "\n").Replace(listing)
	var lines []string
	for _, l := range strings.Split(text, "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

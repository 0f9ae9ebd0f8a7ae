// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// TestMain is there for the benchmarks.
func TestMain(m *testing.M) { entry.Try(m) }

const marker = "PODWALL_AGENT_BENCH"

// inOwnNamespace runs f once in a process of its own, inside a network namespace
// of its own, and reports the figures that it returns as those of the benchmark.
func inOwnNamespace(b *testing.B, f func(b *testing.B) map[string]float64) {
	b.Helper()
	if os.Getenv(marker) == b.Name() {
		for unit, n := range f(b) {
			fmt.Printf("\nfigure %s %g\n", unit, n)
		}
		return
	}
	for b.Loop() {
		for line := range strings.Lines(inside(b)) {
			var unit, number string
			if n, _ := fmt.Sscanf(line, "figure %s %s", &unit, &number); n == 2 {
				figure, err := strconv.ParseFloat(number, 64)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(figure, unit)
			}
		}
	}
	b.ReportMetric(0, "ns/op") // the process, its namespace and all; says nothing
}

// inside runs this benchmark again, in its namespace, and returns what it says.
func inside(b *testing.B) string {
	b.Helper()
	ns, err := netns.New()
	if err != nil {
		b.Skip(err)
	}
	defer ns.Close()
	parts := strings.Split(b.Name(), "/")
	cmd := exec.CommandContext(b.Context(), "/proc/self/exe", "-test.run=^$", "-test.benchtime=1x", "-test.bench=^"+strings.Join(parts, "$/^")+"$")
	cmd.Env = append(os.Environ(), marker+"="+b.Name())
	out, err := start(ns, cmd)
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return out
}

func start(ns *netns.NS, cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

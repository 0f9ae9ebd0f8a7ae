// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// jobs is how many mutants are tried at a time; each uses about one processor.
const jobs = 2

// suites are the packages whose tests should see a mistake in a package, in
// the order in which they are asked; the first that fails ends the search.
func suites() map[string][]string {
	return map[string][]string{
		"internal/agent":           {"agent"},
		"internal/agent/flows":     {"agent/flows"},
		"internal/agent/services":  {"agent/services"},
		"internal/netpol/denied":   {"netpol/denied"},
		"internal/netpol/generate": {"netpol/generate"},
		"internal/explain":         {"explain", "explain/matrix"},
		"internal/explain/reach":   {"explain/reach"},
		"internal/kubectl":         {"kubectl"},
		"internal/connect":         {"connect"},
		"internal/connect/socket":  {"connect/socket"},
		"internal/kubectl/page":    {"kubectl/page"},
		"internal/source/kube":     {"source/kube"},
		"internal/cluster": {"cluster", "cluster/convert", "netpol/policy", "netpol/compile",
			"lab/cases"},
		"internal/cluster/convert":        {"cluster/convert", "lab/cases", "proxy/service"},
		"internal/cluster/endpoints":      {"cluster/endpoints"},
		"internal/proxy/oracle":           {"proxy/service"},
		"internal/proxy/service":          {"proxy/service"},
		"internal/netpol/policy":          {"netpol/policy", "netpol/compile", "lab/cases"},
		"internal/netpol/compile":         {"netpol/compile", "lab/cases"},
		"internal/datapath":               {"datapath"},
		"internal/netpol/cut":             {"netpol/cut"},
		"internal/netpol/decide":          {"netpol/decide"},
		"internal/inet":                   {"inet", "netpol/policy", "netpol/program", "netpol/compile"},
		"internal/netpol/program":         {"netpol/program", "netpol/compile", "netpol/denied"},
		"internal/netpol/ruleset":         {"netpol/ruleset"},
		"internal/gate":                   {"gate", "gate/cni", "gate/nri"},
		"internal/gate/cni":               {"gate/cni"},
		"internal/gate/nri":               {"gate/nri"},
		"internal/kernel/conntrack":       {"kernel/conntrack"},
		"internal/kernel/links":           {"kernel/links", "datapath"},
		"internal/kernel/nft":             {"kernel/nft", "netpol/ruleset", "proxy/ruleset"},
		"internal/proxy/program":          {"proxy/program"},
		"internal/proxy/ruleset":          {"proxy/ruleset"},
		"internal/proxy/ipvs":             {"proxy/ipvs"},
		"internal/proxy/ipvs/host":        {"proxy/ipvs/host"},
		"internal/proxy/stale":            {"proxy/stale", "proxy/ruleset"},
		"internal/proxy/tables":           {"proxy/tables"},
		"internal/proxy/foreign":          {"proxy/foreign"},
		"internal/proxy/foreign/host":     {"proxy/foreign/host"},
		"internal/proxy/health":           {"proxy/health"},
		"internal/proxy/node":             {"proxy/node"},
		"internal/web":                    {"web"},
		"internal/leftover/host":          {"leftover/host"},
		"internal/kuberouter/annotations": {"kuberouter/annotations"},
		"internal/observe":                {"observe"},
		"internal/kuberouter":             {"kuberouter"},
		"internal/source/manifest":        {"source/manifest"},
	}
}

// randomised are the packages with tests on random clusters. Their flags fix
// the seed, keep failures out of the tree and do not look for small examples.
func randomised() []string {
	return []string{"agent", "netpol/denied", "netpol/policy", "netpol/compile", "netpol/ruleset", "proxy/program",
		"proxy/ipvs", "proxy/ruleset", "proxy/service", "proxy/stale",
		"source/manifest"}
}

func (m mutant) suite() []string { return suites()[filepath.Dir(m.file)] }

// result is what became of a mutant. killedBy is empty if it survived.
type result struct {
	killedBy string
	took     time.Duration
	err      error
}

// tester tries mutants. Its directory takes their files.
type tester struct {
	dir  string
	seed uint64
}

// healthy checks that the tests pass without any mistake: otherwise they would
// seem to notice everything.
func (t *tester) healthy(ctx context.Context, list []mutant) error {
	var packages []string
	for _, m := range list {
		packages = append(packages, m.suite()...)
	}
	for _, pkg := range slices.Compact(slices.Sorted(slices.Values(packages))) {
		by, err := t.test(ctx, pkg, "")
		if err != nil {
			return fmt.Errorf("testing %s without a mistake: %w", pkg, err)
		}
		if by != "" {
			return fmt.Errorf("testing %s without a mistake: %s fails", pkg, by)
		}
	}
	return nil
}

// all tries the mutants, a few at a time, and delivers the results in the order
// of the list.
func (t *tester) all(ctx context.Context, list []mutant) <-chan result {
	slots := make(chan struct{}, jobs)
	results := make([]chan result, len(list))
	for i := range list {
		results[i] = make(chan result, 1)
	}
	go func() {
		for i, m := range list {
			slots <- struct{}{}
			go func() {
				results[i] <- t.try(ctx, i, m)
				<-slots
			}()
		}
	}()
	ordered := make(chan result)
	go func() {
		for _, r := range results {
			ordered <- <-r
		}
		close(ordered)
	}()
	return ordered
}

// try runs the suite of one mutant until a test fails.
func (t *tester) try(ctx context.Context, number int, m mutant) (r result) {
	start := time.Now()
	defer func() { r.took = time.Since(start) }()
	overlay, err := t.overlay(number, m)
	if err != nil {
		return result{err: err}
	}
	for _, pkg := range m.suite() {
		by, err := t.test(ctx, pkg, overlay)
		if by != "" || err != nil {
			return result{killedBy: by, err: err}
		}
	}
	return result{}
}

// overlay writes the mutated file and tells the go command to read it in place
// of the true one.
func (t *tester) overlay(number int, m mutant) (string, error) {
	name, err := filepath.Abs(m.file)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", m.file, err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("reading the true file: %w", err)
	}
	mutated, err := m.apply(string(text))
	if err != nil {
		return "", err
	}
	base := filepath.Join(t.dir, strconv.Itoa(number))
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{name: base + ".go"}})
	if err != nil {
		return "", fmt.Errorf("writing the overlay: %w", err)
	}
	return base + ".json", errors.Join(os.WriteFile(base+".go", []byte(mutated), 0o600),
		os.WriteFile(base+".json", replace, 0o600))
}

// test runs the tests of a package and returns the name of one that failed. A
// test that only found its random clusters too dull has noticed nothing: it is
// left out, and the others are asked again.
func (t *tester) test(ctx context.Context, pkg, overlay string) (failed string, err error) {
	skip := []string{"^$"}
	for range 5 {
		out, err := t.goTest(ctx, pkg, overlay, strings.Join(skip, "|"))
		if err == nil {
			return "", nil
		}
		name := failure(out)
		if name == "" || ctx.Err() != nil {
			return "", fmt.Errorf("running the tests of %s: %w\n%s", pkg, err, out)
		}
		if !strings.Contains(out, "too dull") {
			return pkg + "." + name, nil
		}
		skip = append(skip, "^"+name+"$")
	}
	return "", fmt.Errorf("running the tests of %s: all of %v are too dull", pkg, skip[1:])
}

func (t *tester) goTest(ctx context.Context, pkg, overlay, skip string) (out string, err error) {
	args := []string{"test", "-p=1", "-vet=off", "-count=1", "-failfast", "-timeout=3m", "-overlay=" + overlay,
		"-skip=" + skip, "./internal/" + pkg}
	if slices.Contains(randomised(), pkg) {
		args = append(args, "-rapid.nofailfile", "-rapid.shrinktime=1ms", fmt.Sprintf("-rapid.seed=%d", t.seed))
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	// With CI set, a kernel test that cannot run fails instead of being skipped.
	cmd.Env = append(os.Environ(), "CI=true")
	both, err := cmd.CombinedOutput()
	return string(both), err
}

// failure finds the first failed test in the output of go test. It is empty if
// no test ran, as when the mutant does not compile.
func failure(out string) string {
	if found := regexp.MustCompile(`(?m)^--- FAIL: (\S+)`).FindStringSubmatch(out); found != nil {
		return found[1]
	}
	// The go command names the test that ran when the time was over.
	if found := regexp.MustCompile(
		`(?m)^panic: test timed out[^\n]*\n\s*running tests:\n\s*(\S+)`).FindStringSubmatch(out); found != nil {
		return found[1] + " (time)"
	}
	return ""
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/test/cluster"
)

// noSCTP are the specs that need sockets which not every kernel has.
const noSCTP = "SCTPConnectivity"

// skipped is the regular expression of specs that are left out; those of more too, if it is not empty.
func skipped(passed map[string]bool, more string) string {
	list := []string{noSCTP}
	if more != "" {
		list = append(list, more)
	}
	for _, name := range slices.Sorted(maps.Keys(passed)) {
		if passed[name] {
			list = append(list, regexp.QuoteMeta(name)+"$")
		}
	}
	return strings.Join(list, "|")
}

// runSpecs runs the upstream specs whose names match a regular expression, and
// do not match another one. It returns their results also where some failed. Their
// full log goes to a file.
func runSpecs(ctx context.Context, c *cluster.Cluster, bin, dir, focus, skip string,
	say func(string, ...any)) ([]Spec, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	results := filepath.Join(dir, "junit_01.xml")
	if err := os.Remove(results); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // an earlier run's would be taken for this one's
	}
	log, err := os.Create(filepath.Join(dir, "specs.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd, start := c.Command(ctx, filepath.Join(bin, "netpol.test"), "--kubeconfig="+c.Kubeconfig(),
		"--provider=local", "--node-os-distro=debian",
		"--num-nodes="+strconv.Itoa(len(c.Nodes())), "--minStartupPods=0", "--system-pods-startup-timeout=10s",
		"--dump-logs-on-failure=false",
		"--dns-domain=cluster.local", "--report-dir="+dir, "--ginkgo.no-color", "--ginkgo.v", "--ginkgo.timeout=2h",
		"--ginkgo.focus="+focus, "--ginkgo.skip="+skip)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) } // it writes then what it has found
	cmd.WaitDelay = time.Minute
	if err := start(); err != nil {
		return nil, err
	}
	stop := follow(log.Name(), say)
	ended := cmd.Wait() // it also says that specs failed, which the report does
	stop()
	specs, err := readSpecs(results)
	if err != nil {
		err = errors.Join(err, ended)
	}
	if ctx.Err() != nil { // the last one was not allowed to end
		specs = slices.DeleteFunc(specs, func(s Spec) bool { return s.Status == "interrupted" })
		err = errors.Join(err, ctx.Err())
	}
	return specs, err
}

// follow says how far the specs are, until stopped.
func follow(log string, say func(string, ...any)) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Minute):
				text, err := os.ReadFile(log)
				if err == nil {
					say("%d specs have ended, %d of them failed", strings.Count(string(text), "\n• "),
						strings.Count(string(text), "\n• [FAILED]"))
				}
			}
		}
	}()
	return func() { close(done); <-gone }
}

// junit is what is read of the file that the specs leave.
type junit struct {
	Suites []struct {
		Cases []struct {
			Name    string  `xml:"name,attr"`
			Status  string  `xml:"status,attr"`
			Time    float64 `xml:"time,attr"`
			Failure struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func readSpecs(file string) ([]Spec, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading what the specs found: %w", err)
	}
	return parseSpecs(text)
}

// parseSpecs leaves out what was not run, and what is no spec.
func parseSpecs(text []byte) (specs []Spec, err error) {
	var j junit
	if err := xml.Unmarshal(text, &j); err != nil {
		return nil, fmt.Errorf("reading what the specs found: %w", err)
	}
	for _, suite := range j.Suites {
		for _, c := range suite.Cases {
			name, isSpec := strings.CutPrefix(c.Name, "[It] [sig-network] ")
			if !isSpec || c.Status == "skipped" {
				continue
			}
			specs = append(specs, Spec{Name: name, Status: c.Status, Seconds: c.Time, Failure: c.Failure.Message})
		}
	}
	return specs, nil
}

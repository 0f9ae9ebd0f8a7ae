// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/podwall/podwall/test/cluster"
)

// agents says what the agents cost.
func (w *world) agents() ([]Agent, error) {
	var list []Agent
	for _, n := range w.Nodes() {
		a, err := agentOf(n)
		if err != nil {
			return list, err
		}
		list = append(list, a)
	}
	return list, nil
}

// agentOf finds the agent of a node among its processes.
func agentOf(n *cluster.Node) (Agent, error) {
	entries, err := os.ReadDir(n.File("/proc"))
	if err != nil {
		return Agent{}, err
	}
	for _, e := range entries {
		dir := n.File(filepath.Join("/proc", e.Name()))
		if name, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil &&
			strings.TrimSpace(string(name)) == "podwall-agent" {
			return costs(n.Name, dir)
		}
	}
	return Agent{}, fmt.Errorf("%s has no agent", n.Name)
}

// costs reads what a process has used. Times are in hundredths of a second on
// every architecture.
func costs(node, dir string) (Agent, error) {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	status, err2 := os.ReadFile(filepath.Join(dir, "status"))
	uptime, err3 := os.ReadFile("/proc/uptime")
	if err := errors.Join(err, err2, err3); err != nil {
		return Agent{}, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	const user, kernel, began = 11, 12, 19 // as in proc(5), counted from the state
	if len(f) <= began {
		return Agent{}, fmt.Errorf("%s/stat is too short", dir)
	}
	var numbers []float64
	for _, text := range []string{f[user], f[kernel], f[began], strings.Fields(string(uptime))[0]} {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return Agent{}, err
		}
		numbers = append(numbers, v)
	}
	return Agent{Node: node, CPUSeconds: (numbers[0] + numbers[1]) / 100, Lived: numbers[3] - numbers[2]/100,
		MemoryMiB: mebibytes(string(status), "VmRSS:"), PeakMiB: mebibytes(string(status), "VmHWM:")}, nil
}

func mebibytes(status, field string) float64 {
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); slices.Contains(f, field) && len(f) > 1 {
			kib, err := strconv.ParseFloat(f[1], 64)
			if err == nil {
				return kib / 1024
			}
		}
	}
	return 0
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package measure says what machine a measurement ran on. The packages below it
// measure: packets (what a packet and a request cost), web (the reference setup's
// own scheme), control (what a change of the cluster costs). They return rows
// and plots of package bench; command lines and printing are package cli's.
package measure

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/bench"
)

// Machine describes this machine as it is now.
func Machine() (bench.Machine, error) {
	m := bench.Machine{Cores: runtime.NumCPU()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return m, fmt.Errorf("asking for the kernel's version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(u.Release[:])
	var err error
	if m.CPU, err = cpu(); err != nil {
		return m, err
	}
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("reading the load: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	if m.Load, err = strconv.ParseFloat(first, 64); err != nil {
		return m, fmt.Errorf("reading the load: %w", err)
	}
	return m, nil
}

// cpu is the model's name; on machines that do not say it, the architecture.
func cpu() (string, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("reading the processor's name: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("reading the processor's name: %w", err)
	}
	return runtime.GOARCH, nil
}

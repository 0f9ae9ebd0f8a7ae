// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Process is a visible process: a container sees those of its node only with hostPID.
type Process struct {
	ID   string
	Args []string
}

// Processes lists the visible processes of this network namespace whose program has the name. A process
// whose namespace cannot be read counts.
func Processes(name string) (list []Process, err error) {
	commands, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	own, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	for _, file := range commands {
		text, err := os.ReadFile(file) // it may end meanwhile
		if err != nil || strings.TrimSpace(string(text)) != name {
			continue
		}
		dir := filepath.Dir(file)
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err == nil && ns != own {
			continue
		}
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(args) == 0 {
			continue // it has ended, and nobody waited for it yet
		}
		list = append(list, Process{ID: filepath.Base(dir),
			Args: strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")})
	}
	return list, nil
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// safe refuses to run anywhere but in a node of the lab: on a real node both
// variables may be set too.
func safe(node, kubeconfig string) error {
	if node == "" || kubeconfig == "" {
		return errors.New("NODE_NAME and KUBECONFIG must be set: " +
			"it is to be started by `podwall-lab bench --peer` only")
	}
	switch apart, err := apart(); {
	case err != nil:
		return err
	case !apart:
		return errors.New("this is the network namespace of those who started it, want that of a lab node")
	}
	switch machine, err := first(); {
	case err != nil:
		return err
	case machine:
		return errors.New("this is the network namespace of process 1, want that of a lab node")
	}
	switch leads, err := leadsOut(); {
	case err != nil:
		return err
	case leads:
		return errors.New("this network namespace has a default route, which no lab node has")
	}
	return nil
}

// first reports whether this is the network namespace of process 1. If that must
// not be known it counts as no.
func first() (bool, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return false, fmt.Errorf("looking at the network namespace: %w", err)
	}
	ns, err := os.Readlink("/proc/1/ns/net")
	return err == nil && ns == own, nil
}

// apart reports whether an ancestor of this process is in another network
// namespace, as the lab is. Process 1 alone would not do: it may be hidden.
// Ancestors that must not be looked at count for nothing.
func apart() (bool, error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return false, fmt.Errorf("looking at the network namespace: %w", err)
	}
	const most = 100
	pid := os.Getppid()
	for range most {
		if pid <= 0 {
			break
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && ns != own {
			return true, nil
		}
		pid = parent(pid)
	}
	return false, nil
}

// parent is 0 for a process that has none, or is gone.
func parent(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(value)) // 0 ends the walk
			return n
		}
	}
	return 0
}

// leadsOut reports whether there is a default route.
func leadsOut() (bool, error) {
	six, err := os.ReadFile("/proc/self/net/ipv6_route")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("reading the routes: %w", err)
	}
	for line := range strings.Lines(string(six)) {
		// A default route that leads nowhere is on every node's loopback.
		if f := strings.Fields(line); len(f) == 10 && f[0] == strings.Repeat("0", 32) && f[1] == "00" && f[9] != "lo" {
			return true, nil
		}
	}
	text, err := os.ReadFile("/proc/self/net/route")
	if err != nil {
		return false, fmt.Errorf("reading the routes: %w", err)
	}
	const destination, mask, zero = 1, 7, "00000000"
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > mask && f[destination] == zero && f[mask] == zero {
			return true, nil
		}
	}
	return false, nil
}

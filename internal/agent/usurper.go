// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bufio"
	"net"
	"os"
	"strconv"
	"strings"
)

// A local user without rights can bind the agent's lock and its ports while no
// agent runs. That must not keep the agent from enforcing: only processes of root
// count as another agent, or as a program that the operator put on the port.

// heldByUser reports whether a process that is not root's listens on the port of one
// of the addresses, and none of root's does.
func heldByUser(addrs []string) (users bool) {
	wanted := map[uint64]bool{}
	for _, a := range addrs {
		if _, port, err := net.SplitHostPort(a); err == nil {
			n, _ := strconv.ParseUint(port, 10, 16)
			wanted[n] = true
		}
	}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		for port, uids := range listeners(file) {
			for _, uid := range uids {
				if wanted[port] && uid == 0 {
					return false
				}
				users = users || wanted[port]
			}
		}
	}
	return users
}

// listeners reads which users listen on which TCP ports of this network namespace.
func listeners(file string) map[uint64][]uint64 {
	const local, state, user, listening = 1, 3, 7, "0A"
	found := map[uint64][]uint64{}
	f, err := os.Open(file)
	if err != nil {
		return found
	}
	defer func() { _ = f.Close() }() // it was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) <= user || fields[state] != listening {
			continue
		}
		_, hex, _ := strings.Cut(fields[local], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		uid, bad := strconv.ParseUint(fields[user], 10, 32)
		if err == nil && bad == nil {
			found[port] = append(found[port], uid)
		}
	}
	return found
}

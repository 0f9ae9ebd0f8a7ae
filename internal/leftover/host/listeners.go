// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Listeners returns the addresses of this network namespace's listening TCP sockets on a port.
func Listeners(port uint16) (addrs []netip.Addr, err error) {
	for _, table := range []string{"tcp", "tcp6"} {
		list, err := listeners(table, port)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, list...)
	}
	return addrs, nil
}

func listeners(table string, at uint16) (addrs []netip.Addr, err error) {
	f, err := os.Open("/proc/thread-self/net/" + table)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // IPv6 is disabled
	}
	if err != nil {
		return nil, fmt.Errorf("reading who listens: %w", err)
	}
	defer f.Close()
	const listening = "0A"
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != listening {
			continue
		}
		if a, port, ok := parseSocket(fields[1]); ok && port == at {
			addrs = append(addrs, a)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading who listens: %w", err)
	}
	return addrs, nil
}

// parseSocket reads an address and port as /proc/net/tcp writes them: words of four bytes, in the
// byte order of the machine.
func parseSocket(s string) (netip.Addr, uint16, bool) {
	text, port, _ := strings.Cut(s, ":")
	words, err := hex.DecodeString(text)
	n, bad := strconv.ParseUint(port, 16, 16)
	if err != nil || bad != nil || len(words)%4 != 0 {
		return netip.Addr{}, 0, false
	}
	for i := 0; i < len(words); i += 4 {
		binary.NativeEndian.PutUint32(words[i:], binary.BigEndian.Uint32(words[i:]))
	}
	a, ok := netip.AddrFromSlice(words)
	return a.Unmap(), uint16(n), ok
}

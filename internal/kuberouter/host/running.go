// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// HealthPort is the port of kube-router's /healthz, and by default of podwall's.
const HealthPort = 20244

// running looks for a running kube-router: by the names of the visible processes, and by its health
// port.
func running(ctx context.Context) (signs []string, err error) {
	commands, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	for _, file := range commands {
		name, err := os.ReadFile(file) // it may end meanwhile
		if err == nil && strings.TrimSpace(string(name)) == "kube-router" {
			signs = append(signs, "process "+filepath.Base(filepath.Dir(file))+" has its name")
		}
	}
	for _, table := range []string{"tcp", "tcp6"} {
		addrs, err := listeners(table)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if at := netip.AddrPortFrom(a, HealthPort); !podwall(ctx, at) {
				signs = append(signs, fmt.Sprintf("another program than podwall listens at its health port, %s", at))
			}
		}
	}
	return slices.Compact(signs), nil
}

// listeners returns the addresses of this network namespace's listening sockets on the health port.
func listeners(table string) (addrs []netip.Addr, err error) {
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
		if a, port, ok := parseSocket(fields[1]); ok && port == HealthPort {
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

// podwall reports whether podwall's status page answers at the address.
func podwall(ctx context.Context, at netip.AddrPort) bool {
	switch {
	case at.Addr() == netip.IPv4Unspecified():
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	case at.Addr().IsUnspecified():
		at = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(at.Addr().String(),
		strconv.Itoa(int(at.Port())))+"/statusz", nil)
	if err != nil {
		return false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	var status struct {
		Schema string `json:"schema"`
	}
	return answer.StatusCode == http.StatusOK && json.NewDecoder(answer.Body).Decode(&status) == nil &&
		strings.HasPrefix(status.Schema, "podwall")
}

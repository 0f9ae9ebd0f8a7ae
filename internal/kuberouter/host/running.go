// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	left "github.com/podwall/podwall/internal/leftover/host"
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
	addrs, err := left.Listeners(HealthPort)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if at := netip.AddrPortFrom(a, HealthPort); !podwall(ctx, at) {
			signs = append(signs, fmt.Sprintf("another program than podwall listens at its health port, %s", at))
		}
	}
	return slices.Compact(signs), nil
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

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	left "github.com/podwall/podwall/internal/leftover/host"
)

// HealthPort is the port of kube-router's /healthz, and by default of podwall's.
const HealthPort = 20244

// running looks for a running kube-router: by the names of the visible processes, and by its health
// port.
func running(ctx context.Context) (signs []string, err error) {
	processes, err := left.Processes("kube-router")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		signs = append(signs, "process "+p.ID+" has its name")
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
	answer, ok := left.Ask(ctx, at, "/statusz")
	var status struct {
		Schema string `json:"schema"`
	}
	return ok && answer.Status == http.StatusOK && json.Unmarshal(answer.Body, &status) == nil &&
		strings.HasPrefix(status.Schema, "podwall")
}

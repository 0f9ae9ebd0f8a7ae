// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/datapath"
)

// askAgent is how long the agent of this node may take to say how it is.
const askAgent = 5 * time.Second

// notReady says why the agent that runs in this network namespace does not enforce
// everything, in the words of its /readyz; empty if it does. A table in the kernel
// and an agent that lives are not enough: the table may be an earlier agent's.
func notReady(ctx context.Context) (why string) {
	ctx, cancel := context.WithTimeout(ctx, askAgent)
	defer cancel()
	at, err := healthOfAgent(ctx)
	switch {
	case err != nil:
		return "its agent does not say where /readyz is: " + err.Error()
	case at == "":
		return "its agent serves no /readyz to ask: give it a --health-port"
	case heldByUser([]string{at}):
		return "the port of its agent's /readyz belongs to a user's process"
	}
	answer, err := readyz(ctx, at)
	if err != nil {
		return "its agent's /readyz cannot be asked: " + err.Error()
	}
	return answer
}

// healthOfAgent asks whoever holds the agent's lock where it answers health. It is
// empty if that is off.
func healthOfAgent(ctx context.Context) (string, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", datapath.AgentLock)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }() // nothing is written
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end) // a unix socket has them
	}
	const longest = 1 << 10
	said, err := io.ReadAll(io.LimitReader(conn, longest))
	if err != nil {
		return "", err
	}
	line, whole := strings.CutSuffix(string(said), "\n")
	if !whole {
		return "", fmt.Errorf("it is of an older release: update it first")
	}
	return line, nil
}

// readyz returns what /readyz says at an address, empty if it is "ready".
func readyz(ctx context.Context, at string) (why string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+here(at)+"/readyz", nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	const longest = 4 << 10
	text, err := io.ReadAll(io.LimitReader(response.Body, longest))
	if err != nil || response.StatusCode == http.StatusOK {
		return "", err
	}
	return "its agent's /readyz answers " + response.Status + ": " + strings.TrimSpace(string(text)), nil
}

// here is where to reach who listens at an address: every address is also this one.
func here(at string) string {
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		return at
	}
	switch addr, _ := netip.ParseAddr(host); {
	case host == "", addr == netip.IPv4Unspecified():
		host = "127.0.0.1"
	case addr == netip.IPv6Unspecified():
		host = "::1"
	}
	return net.JoinHostPort(host, port)
}

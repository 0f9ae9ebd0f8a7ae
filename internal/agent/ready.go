// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// notReady returns why the agent that runs in this network namespace does not enforce
// everything, in the words of its /readyz; empty if it does. A table in the kernel
// and an agent that lives are not enough: the table may be an earlier agent's.
func notReady(ctx context.Context) (why string) {
	ctx, cancel := context.WithTimeout(ctx, askAgent)
	defer cancel()
	a, err := ask(ctx)
	switch {
	case err != nil:
		return "the state of its agent cannot be read: " + err.Error()
	case a.NotReady != "":
		return "its agent is not ready: " + a.NotReady
	}
	return ""
}

// page returns the reasons on a health page, empty if there are none.
func page(ctx context.Context, at, path string) (why string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+here(at)+path, nil)
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
	return path + " answers " + response.Status + ": " + strings.TrimSpace(string(text)), nil
}

// here returns where to reach a listener of this host: every address is also a loopback one.
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

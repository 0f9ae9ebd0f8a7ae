// SPDX-License-Identifier: Apache-2.0

//go:build linux

package host

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"time"
)

// Answer is what a program answers to an HTTP request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // up to some megabytes
}

// Ask sends an HTTP request to a program that listens at an address of this node. ok is false if it does
// not answer, within two seconds, in HTTP.
func Ask(ctx context.Context, at netip.AddrPort, path string) (a Answer, ok bool) {
	switch {
	case at.Addr() == netip.IPv4Unspecified():
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	case at.Addr().IsUnspecified():
		at = netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+path, nil)
	if err != nil {
		return a, false
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return a, false
	}
	defer response.Body.Close()
	const most = 4 << 20
	body, err := io.ReadAll(io.LimitReader(response.Body, most))
	return Answer{response.StatusCode, response.Header, body}, err == nil
}

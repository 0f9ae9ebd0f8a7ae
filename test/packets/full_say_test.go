// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/observe"
)

// reader returns a function that reads pages of node1's agent, over connections that exist before the table
// is full: new ones would be dropped too.
func (w *world) reader(t *testing.T) func(url string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return w.NS(t, node1).Dial(ctx, network, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := http.Client{Timeout: time.Minute, Transport: transport}
	read := func(url string) string {
		t.Helper()
		resp, err := client.Get(url)
		stage.Check(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		stage.Check(t, err)
		return string(text)
	}
	for _, url := range []string{statusPage, metricsPage} {
		read(url)
	}
	return read
}

const (
	statusPage  = "http://127.0.0.1:20244/statusz"
	metricsPage = "http://127.0.0.1:20245/metrics"
)

// saysFull wants the agent to report, within some periods, whether the connection table is full: as a
// problem with a cure and in the metrics, while the node stays ready.
func saysFull(t *testing.T, read func(string) string, full bool) {
	t.Helper()
	var s observe.Status
	var found *observe.Problem
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		s, found = observe.Status{}, nil
		stage.Check(t, json.Unmarshal([]byte(read(statusPage)), &s))
		for _, p := range s.Problems {
			if p.Subject == "limit conntrack" {
				found = &p
			}
		}
		if !full && found == nil || full && found != nil && strings.Contains(found.Text, "100 %") { // it is read while it fills
			break
		}
		if time.Now().After(end) {
			t.Fatalf("full is %t, and the problems are %+v", full, s.Problems)
		}
	}
	if !s.Ready {
		t.Errorf("full is %t, and the node is not ready: %q; a full table does not open anything", full, s.NotReady)
	}
	metrics := read(metricsPage)
	if says := strings.Contains(metrics, "podwall_limit_used_ratio{limit=\"conntrack\"} 1\n"); says != full {
		t.Errorf("full is %t, and the metrics say %t", full, says)
	}
	if full && (!strings.Contains(found.Cure, "nf_conntrack_max") || s.Connections == nil ||
		s.Connections.Entries < s.Connections.Limit) {
		t.Errorf("problem %+v, connections %+v", found, s.Connections)
	}
}

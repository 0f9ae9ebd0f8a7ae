// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
)

// Who removes another firewall's rules must know that the agent of this node
// enforces everything. Only an answer "ready" of the agent itself says so.
func TestOnlyTheAgentsOwnAnswerCountsAsReady(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		status, text := http.StatusOK, "ready"
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/readyz" {
				status = http.StatusNotFound
			}
			http.Error(w, text, status)
		}))
		defer page.Close()
		at := page.Listener.Addr().String()
		asked := func(health string) string {
			release, usurper, err := lock(t.Context(), health)
			if err != nil || usurper != "" {
				t.Fatal(err, usurper)
			}
			defer release()
			return notReady(t.Context())
		}
		_, port, _ := net.SplitHostPort(at)
		for _, health := range []string{at, ":" + port, "0.0.0.0:" + port, "localhost:" + port} {
			if why := asked(health); why != "" {
				t.Errorf("an agent that is ready at %s: %q", health, why)
			}
		}
		status, text = http.StatusServiceUnavailable, "not ready: limit sets"
		users := listenAs(t, 65534)
		for health, want := range map[string]string{
			at: "not ready: limit sets", "": "--health-port", "127.0.0.1:1": "refused", users: "a user's process",
		} {
			if why := asked(health); !strings.Contains(why, want) {
				t.Errorf("%q: %q, want %q", health, why, want)
			}
		}
		if why := notReady(t.Context()); !strings.Contains(why, "does not say where") {
			t.Errorf("without an agent: %q", why)
		}
		mute, _, err := datapath.Lock(context.Background(), datapath.AgentLock)
		if err != nil {
			t.Fatal(err)
		}
		defer mute.Close()
		go func() {
			if conn, err := mute.Accept(); err == nil {
				_ = conn.Close()
			}
		}()
		if why := notReady(t.Context()); !strings.Contains(why, "update it first") {
			t.Errorf("an agent that says nothing: %q", why)
		}
	})
}

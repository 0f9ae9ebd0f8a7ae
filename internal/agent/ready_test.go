// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/observe"
)

// states are an agent that starts, one that is ready, one that is not.
func states() (starting, ready, not *observe.Observer) {
	info := observe.Info{Node: "n1", Period: time.Hour}
	starting, ready, not = observe.New(observe.NewRegistry(), info), observe.New(observe.NewRegistry(), info),
		observe.New(observe.NewRegistry(), info)
	for _, o := range []*observe.Observer{ready, not} {
		o.SetMissing(nil)
		o.Record(observe.Pass{})
	}
	not.SetProblem(observe.Problem{Subject: "bridge cni0", Text: "line one\nline two", Blocking: true})
	return starting, ready, not
}

// locked takes the lock for a test.
func locked(t *testing.T, o *observe.Observer) *agentLock {
	t.Helper()
	lock := newAgentLock("127.0.0.1:1", o, slog.New(slog.DiscardHandler))
	if err := lock.take(t.Context()); err != nil || !lock.held() {
		t.Fatal(err, "taken:", lock.held())
	}
	return lock
}

func probed(t *testing.T, what config.Probe, health string) (string, bool) {
	t.Helper()
	cfg := config.Config{Probe: what}
	if host, port, err := net.SplitHostPort(health); err == nil {
		n, _ := strconv.ParseUint(port, 10, 16)
		cfg.HealthAddr, cfg.HealthPort = host, uint16(n)
	}
	return Probe(t.Context(), cfg)
}

// The agent says at its lock how it is. Who removes another firewall's rules, and a
// probe, believe nobody else, and take no answer for a no.
func TestOnlyTheAgentsOwnAnswerCountsAsReady(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		starting, ready, not := states()
		for _, tt := range []struct {
			name  string
			state *observe.Observer
			live  bool
			why   string // not ready
		}{
			{"an agent that starts", starting, true, "waiting for the first complete list"},
			{"an agent that is ready", ready, true, ""},
			{"an agent that is not", not, true, "bridge cni0: line one\nline two"},
			{"a cleanup", nil, false, "does not report its state"},
		} {
			lock := locked(t, tt.state)
			if why := notReady(t.Context()); (why == "") != (tt.why == "") || !strings.Contains(why, tt.why) {
				t.Errorf("%s: not ready %q, want %q", tt.name, why, tt.why)
			}
			text, ok := probed(t, config.ProbeReady, "")
			if ok != (tt.why == "") || !strings.Contains(text, tt.why) {
				t.Errorf("%s: the probe says %t %q", tt.name, ok, text)
			}
			if text, ok := probed(t, config.ProbeLive, ""); ok != tt.live || ok != (text == "live") {
				t.Errorf("%s: the probe says %t %q", tt.name, ok, text)
			}
			lock.release()
		}
		if why := notReady(t.Context()); !strings.Contains(why, "no podwall-agent runs") {
			t.Errorf("without an agent: %q", why)
		}
		if text, ok := probed(t, config.ProbeLive, ""); ok || !strings.Contains(text, "no podwall-agent runs") {
			t.Errorf("without an agent: %t %q", ok, text)
		}
	})
}

// To another user the agent says where it answers, and nothing else: why it is not
// ready names pods.
func TestAnotherUserLearnsNothingAtTheLock(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		_, _, not := states()
		defer locked(t, not).release()
		var answer answered
		var err error
		apart.AsUser(t, 65534, func() { answer, err = ask(context.Background()) })
		if err == nil || answer.condition != nil || !strings.Contains(err.Error(), "run it as root") {
			t.Errorf("another user is told %+v, %v", answer, err)
		}
	})
}

// squat takes the agent's lock as a user. It listens when listen is called, and ends with leave.
func squat(t *testing.T) (listen, leave func()) {
	t.Helper()
	fd := 0
	apart.AsUser(t, 65534, func() {
		var err error
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Error(err)
			return
		}
		leave = sync.OnceFunc(func() { _ = unix.Close(fd) })
		t.Cleanup(leave)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: datapath.AgentLock}); err != nil {
			t.Error(err)
		}
	})
	return func() {
		apart.AsUser(t, 65534, func() {
			if err := unix.Listen(fd, 16); err != nil {
				t.Error(err)
			}
		})
	}, leave
}

// Another user's process that has the lock is not believed. The probe asks the page of
// the agent then, unless another user has that, too: it is live then, since no user may
// have an agent restarted, and not ready.
func TestAProbeBelievesNoOtherUser(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		listen, _ := squat(t)
		if _, err := ask(t.Context()); !errors.Is(err, errNotOurs) {
			t.Errorf("who has the lock and does not listen: %v", err)
		}
		if text, ok := probed(t, config.ProbeLive, ""); !ok || !strings.Contains(text, "does not listen") {
			t.Errorf("who has the lock and does not listen: %t %q", ok, text)
		}
		listen()
		status := http.StatusOK
		page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" {
				return
			}
			http.Error(w, "not ready: limit sets", status)
		}))
		defer page.Close()
		at := page.Listener.Addr().String()
		if text, ok := probed(t, config.ProbeReady, at); !ok {
			t.Errorf("the agent is ready: %q", text)
		}
		status = http.StatusServiceUnavailable
		if text, ok := probed(t, config.ProbeReady, at); ok || !strings.Contains(text, "limit sets") {
			t.Errorf("the agent is not ready: %t %q", ok, text)
		}
		if text, ok := probed(t, config.ProbeLive, at); !ok || text != "live" {
			t.Errorf("the agent is live: %q", text)
		}
		for health, want := range map[string]string{listenAs(t, 65534): "and one the port", "": "no --health-port", "127.0.0.1:1": "refused"} {
			for _, what := range []config.Probe{config.ProbeLive, config.ProbeReady} {
				if text, ok := probed(t, what, health); ok != (what == config.ProbeLive) || !strings.Contains(text, want) {
					t.Errorf("%s, %q: %t %q, want %q", what, health, ok, text, want)
				}
			}
		}
		if why := notReady(t.Context()); !strings.Contains(why, "another user's process") {
			t.Errorf("who removes rules is told %q", why)
		}
	})
}

// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/podwall/podwall/internal/cluster"
)

func TestReporterSpeaksOnChangeAndThenMoreSeldom(t *testing.T) {
	log := &logBuffer{}
	r := newReporter(slog.New(slog.NewTextHandler(log, nil)), "", "pods", "https://api")
	now := time.Unix(0, 0)
	r.now = func() time.Time { return now }
	lines := func() int { return strings.Count(log.String(), "\n") }
	refused := errors.New("connection refused")
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", nil)
	for i, step := range []struct {
		after time.Duration
		err   error
		lines int
	}{
		{0, nil, 0}, {0, refused, 1}, {time.Second, refused, 1}, {28 * time.Second, refused, 1}, {time.Second, refused, 2},
		{30 * time.Second, refused, 2},
		{29 * time.Second, refused, 2}, {time.Second, refused, 3}, {time.Minute, refused, 3}, {time.Minute, refused, 4},
		{time.Second, forbidden, 5}, {certain - 1, forbidden, 5}, {1, forbidden, 6}, {time.Second, forbidden, 6},
		{time.Second, apierrors.NewResourceExpired("old"), 6}, {time.Second, nil, 7}, {time.Second, nil, 7},
	} {
		now = now.Add(step.after)
		r.result(t.Context(), step.err)
		if got := lines(); got != step.lines {
			t.Fatalf("after step %d there are %d lines, want %d:\n%s", i, got, step.lines, log)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r.result(ended, refused)
	if lines() != 7 {
		t.Error("stopping is reported as a failure")
	}
}

// What fails is counted each time, whatever the log says of it.
func TestErrorsAreCountedByReason(t *testing.T) {
	got, pods := map[ErrorReason]int{}, schema.GroupResource{Resource: "pods"}
	r := newReporter(quietly(), "", "pods", "https://api")
	r.count = func(reason ErrorReason) { got[reason]++ }
	for reason, err := range map[ErrorReason]error{
		ErrorForbidden:    apierrors.NewForbidden(pods, "", nil),
		ErrorUnauthorized: apierrors.NewUnauthorized("who are you"),
		ErrorUnreachable:  errors.New("connection refused"),
		ErrorRefused:      apierrors.NewTooManyRequests("later", 1),
		ErrorBroken: &apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonInternalError,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: watchBroke}}}}},
	} {
		before := got[reason]
		r.result(t.Context(), err)
		r.result(t.Context(), err)
		r.result(t.Context(), nil)
		r.result(t.Context(), apierrors.NewResourceExpired("old")) // so watches end
		if got[reason] != before+2 {
			t.Errorf("of %v the counts are %v, want 2 of %s", err, got, reason)
		}
	}
	if len(got) != 5 {
		t.Errorf("the counts are %v", got)
	}
	forbidden := got[ErrorForbidden]
	r.result(t.Context(), fmt.Errorf("%w; %w", apierrors.NewForbidden(pods, "", nil), errOwnOnly))
	if got[ErrorForbidden] != forbidden {
		t.Error("where the own Node alone may be read its refusals are counted")
	}
}

// An agent that may read its own Node alone goes on being that while the API server is
// away, or it would write about every policy.
func TestAnotherFailureGivesNoRightToTheNodes(t *testing.T) {
	s := New(&rest.Config{}, quietly()).OnNode("n1")
	r := s.reports[cluster.Nodes.String()]
	for i, step := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{fmt.Errorf("%w; %w", apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "", nil), errOwnOnly), true},
		{errors.New("connection refused"), true},
		{apierrors.NewUnauthorized("who are you"), true},
		{nil, false},
		{errors.New("connection refused"), false},
	} {
		if r.result(t.Context(), step.err); s.seesOneNode() != step.want {
			t.Errorf("step %d: the own Node alone: %t", i, !step.want)
		}
	}
}

func TestForbiddenNamesTheMissingRule(t *testing.T) {
	s := newAPIServer(t)
	s.setRefuse("networkpolicies", http.StatusForbidden)
	store, log := start(t, s)
	await(t, store, "-networkpolicies")
	awaitLog(t, log, "level=ERROR", "apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch]")
}

func TestAServerThatIsAwayIsNamedAndStoppingIsQuick(t *testing.T) {
	s := newAPIServer(t)
	s.Close()
	_, log := start(t, s)
	awaitLog(t, log, "level=WARN", "the API server cannot be reached", s.URL)
	// The clean-up of start fails when the source does not stop within seconds.
}

// TestRefusedConnectionIsHiddenFromTheStreamedListOnly: a watch that goes on
// must see it, or every restart of the server would cost a new list.
func TestRefusedConnectionIsHiddenFromTheStreamedListOnly(t *testing.T) {
	s := newAPIServer(t)
	s.Close()
	c, err := restClient(s.cfg, http.DefaultClient, corev1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	lw := &listWatch{
		ListWatch: cache.NewFilteredListWatchFromClient(c, "pods", "", noFilter),
		report:    newReporter(slog.New(slog.DiscardHandler), "", "pods", s.URL),
	}
	for _, stream := range []bool{false, true} {
		options := metav1.ListOptions{ResourceVersion: "1"}
		if stream {
			options.SendInitialEvents = &stream
		}
		_, err := lw.WatchWithContext(t.Context(), options)
		if err == nil || utilnet.IsConnectionRefused(err) == stream {
			t.Errorf("streamed list %v: got %v", stream, err)
		}
	}
}

// awaitLog waits until the log holds all texts.
func awaitLog(t *testing.T, log *logBuffer, texts ...string) {
	t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		missing := ""
		for _, text := range texts {
			if !strings.Contains(log.String(), text) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the log lacks %q:\n%s", missing, log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestLoadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n" +
		"clusters: [{name: k, cluster: {server: 'https://from-file:6443'}}]\nusers: [{name: u, user: {token: t}}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, kubeconfig, master, host, token string }{
		{"a file alone", file, "", "https://from-file:6443", "t"},
		{"master overrides the file's server", file, "https://master:6443", "https://master:6443", "t"},
		{"master alone", "", "http://master:8080", "http://master:8080", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := LoadConfig(c.kubeconfig, c.master)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Host != c.host || cfg.BearerToken != c.token || !strings.HasPrefix(cfg.UserAgent, "podwall-agent/") {
				t.Errorf("got host %q, token %q, agent %q", cfg.Host, cfg.BearerToken, cfg.UserAgent)
			}
		})
	}
	t.Run("a missing file is an error", func(t *testing.T) {
		if _, err := LoadConfig(filepath.Join(t.TempDir(), "none"), ""); err == nil || !strings.Contains(err.Error(), "must be mounted") {
			t.Errorf("got %v, want the cure", err)
		}
	})
	t.Run("a pod without a token is an error", func(t *testing.T) {
		if _, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token"); err == nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("this machine has a service account's token, so this cannot be tested: run CI outside of a pod, or without its token")
			}
			t.Skip("there is one")
		}
		t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
		t.Setenv("KUBERNETES_SERVICE_PORT", "443")
		if _, err := LoadConfig("", ""); err == nil || !strings.Contains(err.Error(), "mount the service account's token") {
			t.Errorf("got %v, want the cure", err)
		}
	})
	t.Run("nothing outside of a cluster is an error", func(t *testing.T) {
		t.Setenv("KUBERNETES_SERVICE_HOST", "")
		if _, err := LoadConfig("", ""); !errors.Is(err, rest.ErrNotInCluster) || !strings.Contains(err.Error(), "--kubeconfig") {
			t.Errorf("got %v, want the cure", err)
		}
	})
}

func TestRunRefusesAConfigThatCannotWork(t *testing.T) {
	cfg := &rest.Config{Host: "https://api", TLSClientConfig: rest.TLSClientConfig{CAFile: "/none/ca.crt"}}
	if err := New(cfg, slog.New(slog.DiscardHandler)).Run(t.Context(), cluster.NewStore()); err == nil {
		t.Error("there is no error")
	}
}

// A server that was just started refuses everybody for a moment. Nobody must
// bind a role because of that.
func TestARefusalThatPassesNamesNoCure(t *testing.T) {
	log := &logBuffer{}
	r := newReporter(slog.New(slog.NewTextHandler(log, nil)), "", "pods", "https://api")
	now := time.Unix(0, 0)
	r.now = func() time.Time { return now }
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", nil)
	r.result(t.Context(), nil)
	for range 4 {
		r.result(t.Context(), forbidden)
		now = now.Add(time.Second)
	}
	if f := r.state(); f.Connected || f.Cure != "" || !strings.Contains(f.Err, "not allowed to list and watch") {
		t.Errorf("after four seconds the state is %+v", f)
	}
	if s := log.String(); strings.Contains(s, "ClusterRole") || strings.Contains(s, "level=ERROR") {
		t.Errorf("after four seconds the log says %s", s)
	}
	now = now.Add(time.Second)
	r.result(t.Context(), forbidden)
	if f := r.state(); !strings.Contains(f.Cure, "ClusterRole") || !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("after five seconds the state is %+v", f)
	}
	r.listed(t.Context(), nil)
	if f := r.state(); f.Connected || f.Err == "" {
		t.Errorf("a list makes it %+v", f)
	}
}

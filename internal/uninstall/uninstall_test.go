// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// server answers with fixed objects, by path. A text that is "gone" is status 404.
type server struct {
	objects map[string]string
	deleted []string
	broken  atomic.Int32 // so many answers are errors first
	asked   atomic.Int32
	enough  context.CancelFunc // is called after so many questions
}

const questions = 20

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.asked.Add(1) == questions {
		defer s.enough()
	}
	if s.broken.Add(-1) >= 0 {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	path := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:] + r.URL.Query().Get("labelSelector")
	if r.Method == http.MethodDelete {
		s.deleted = append(s.deleted, path)
		delete(s.objects, "podsapp.kubernetes.io/name="+path)
	}
	w.Header().Set("Content-Type", "application/json")
	if text, ok := s.objects[path]; ok {
		fmt.Fprint(w, text)
		return
	}
	if strings.HasPrefix(path, "pods") || path == "nodes" {
		fmt.Fprint(w, `{"items": []}`)
		return
	}
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "nothing here", "code": 404}`)
}

func start(t *testing.T, s *server) (*Cluster, *strings.Builder) {
	t.Helper()
	if s.enough == nil {
		s.enough = func() {}
	}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	out := &strings.Builder{}
	c, err := New(&rest.Config{Host: h.URL, QPS: -1}, "podwall-system", out)
	if err != nil {
		t.Fatal(err)
	}
	c.Every = time.Millisecond
	return c, out
}

const (
	nodes = `{"items": [{"metadata": {"name": "node1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
		{"metadata": {"name": "node2"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}]}`
	agents   = "podsapp.kubernetes.io/name=podwall"
	cleaners = "podsapp.kubernetes.io/name=podwall-uninstall"
)

// byHelms is the agents' DaemonSet as helm makes it.
const byHelms = `{"metadata": {"annotations": {"meta.helm.sh/release-name": "podwall"}}}`

func podOn(node, status string) string {
	return fmt.Sprintf(`{"metadata": {"name": "p-%s"}, "spec": {"nodeName": %q}, "status": {%s}}`, node, node, status)
}

func list(pods ...string) string { return `{"items": [` + strings.Join(pods, ",") + `]}` }

// cleaner is the DaemonSet that cleans, of which a controller has seen a generation.
func cleaner(seen, desired, ready int) string {
	return fmt.Sprintf(`{"metadata": {"generation": 1}, "status": {"observedGeneration": %d, `+
		`"desiredNumberScheduled": %d, "numberReady": %d}}`,
		seen, desired, ready)
}

const isReady = `"conditions": [{"type": "Ready", "status": "True"}]`

// patience ends when the server has been asked often enough.
func (s *server) patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s.enough = cancel
	return ctx
}

// An agent of a dead node cannot be stopped, so nobody waits for it.
func TestAgentsAreStoppedWhereTheNodeAnswers(t *testing.T) {
	s := &server{objects: map[string]string{"nodes": nodes, "podwall": byHelms,
		agents: list(podOn("node1", isReady), podOn("node2", isReady))}}
	s.broken.Store(3)
	c, _ := start(t, s)
	if err := c.StopAgents(t.Context()); err != nil || len(s.deleted) == 0 || s.deleted[0] != Agents {
		t.Errorf("error %v, deleted %v", err, s.deleted)
	}
	s = &server{objects: map[string]string{"nodes": nodes}}
	c, _ = start(t, s)
	if err := c.StopAgents(t.Context()); err != nil {
		t.Errorf("without agents: %v", err)
	}
}

// Whoever applies rendered manifests applies the hooks too. They must not remove
// what was installed with them.
func TestAgentsThatHelmDidNotInstallStay(t *testing.T) {
	s := &server{objects: map[string]string{"nodes": nodes, "podwall": `{"metadata": {"annotations": {"a": "b"}}}`,
		agents: list(podOn("node1", isReady))}}
	s.broken.Store(3)
	c, _ := start(t, s)
	if err := c.StopAgents(t.Context()); !errors.Is(err, ErrNotHelms) || len(s.deleted) != 0 {
		t.Errorf("error %v, deleted %v", err, s.deleted)
	}
}

func TestTheCleanerGoesWhenEveryNodeIsClean(t *testing.T) {
	s := &server{objects: map[string]string{"nodes": nodes, Cleaner: cleaner(1, 2, 2)}}
	c, out := start(t, s)
	if err := c.AwaitNodes(t.Context()); err != nil || len(s.deleted) != 1 ||
		!strings.Contains(out.String(), "2 nodes are clean") {
		t.Errorf("error %v, deleted %v, said %q", err, s.deleted, out)
	}
}

// Whoever uninstalls learns which nodes are left, and why.
func TestNodesThatAreLeftAreNamed(t *testing.T) {
	failing := `"initContainerStatuses": [{"name": "gate", "state": {"terminated": {"exitCode": 0}}},
		{"name": "cleanup", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}]`
	pulling := `"initContainerStatuses": [{"name": "gate", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]`
	for name, tt := range map[string]struct {
		cleaner string
		pods    string
		want    []string
	}{
		"dead": {cleaner(1, 2, 1), list(podOn("node1", isReady), podOn("node2", "")),
			[]string{"node2: the node is dead"}},
		"failing": {cleaner(1, 1, 0), list(podOn("node1", failing)),
			[]string{"node1: container cleanup fails", "kubectl logs p-node1 -c cleanup"}},
		"no image": {cleaner(1, 1, 0), list(podOn("node1", pulling)),
			[]string{"container gate does not start: ImagePullBackOff no such image"}},
		"without": {cleaner(1, 3, 1), list(podOn("node1", isReady)), []string{"2 nodes that have no pod yet",
			"describe daemonset"}},
		"unplaced": {cleaner(1, 1, 0), list(podOn("",
			`"conditions": [{"type": "PodScheduled", "message": "no room"}]`)), []string{"no room"}},
		"just made":  {cleaner(0, 0, 0), list(), []string{"is new"}},
		"just began": {cleaner(1, 1, 0), list(podOn("node1", "")), []string{"node1: it is being cleaned"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{objects: map[string]string{"nodes": nodes, cleaners: tt.pods, Cleaner: tt.cleaner}}
			ctx := s.patience(t)
			c, out := start(t, s)
			err := c.AwaitNodes(ctx)
			for _, words := range tt.want {
				if !errors.Is(err, ErrNotAll) || !strings.Contains(err.Error(), words) ||
					!strings.Contains(out.String(), words) {
					t.Errorf("error %v, said %q, want %q", err, out, words)
				}
			}
			if !strings.Contains(err.Error(), "run helm uninstall again; to give them up: helm uninstall --no-hooks") {
				t.Errorf("error %v has no cure", err)
			}
			if len(s.deleted) > 0 {
				t.Errorf("deleted %v: it must stay for nodes that come back", s.deleted)
			}
		})
	}
}

// What the server says against it is passed on.
func TestTheServersWordsAreSaid(t *testing.T) {
	away := &server{}
	away.broken.Store(1 << 20)
	for want, s := range map[string]*server{"nothing here": {}, "unable to handle": away} {
		ctx := s.patience(t)
		c, _ := start(t, s)
		if err := c.AwaitNodes(ctx); !errors.Is(err, ErrNotAll) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

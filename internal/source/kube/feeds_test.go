// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

// run runs a source until the test ends. It tries again soon.
func run(t *testing.T, s *Source, store *cluster.Store) {
	t.Helper()
	s.backoff = &wait.Backoff{Duration: 50 * time.Millisecond, Factor: 1, Steps: 1, Jitter: 1}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, store) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the source ended with %v", err)
		}
	})
}

// awaitFeed waits until a kind stands as wanted.
func awaitFeed(t *testing.T, s *Source, kind cluster.Kind, what string, holds func(feed.Feed) bool) feed.Feed {
	t.Helper()
	for limit := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f := s.Feeds()[kind]
		if holds(f) {
			return f
		}
		if time.Now().After(limit) {
			t.Fatalf("%s never %s: %+v", kind, what, f)
		}
	}
}

func isConnected(f feed.Feed) bool { return f.Connected }

func quietly() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestAKindThatMayBeListedAndNotWatchedIsNotConnected(t *testing.T) {
	for _, noStream := range []bool{false, true} {
		s := newAPIServer(t)
		s.noStream = noStream
		s.put("pods", pod("a", "10.0.0.1"))
		s.setRefuse("watch pods", http.StatusForbidden)
		log := &logBuffer{}
		store, source := cluster.NewStore(), New(s.cfg, slog.New(slog.NewTextHandler(log, nil)))
		run(t, source, store)
		await(t, store, "a=10.0.0.1") // it was listed
		f := awaitFeed(t, source, cluster.Pods, "has the cure", func(f feed.Feed) bool { return f.Cure != "" })
		if f.Connected || !strings.Contains(f.Err, "not allowed to list and watch") || f.Heard.IsZero() {
			t.Errorf("the pods are %+v", f)
		}
		if strings.Contains(log.String(), "answers again") {
			t.Errorf("a list counts as an end of the failure:\n%s", log)
		}
		s.setRefuse("watch pods", 0)
		awaitFeed(t, source, cluster.Pods, "is connected", isConnected)
		if f := source.Feeds()[cluster.Namespaces]; !f.Connected || f.Err != "" {
			t.Errorf("the namespaces are %+v", f)
		}
	}
}

func TestAServerThatGoesAwayIsNotConnected(t *testing.T) {
	s := newAPIServer(t)
	store, source := cluster.NewStore(), New(s.cfg, quietly())
	run(t, source, store)
	for _, k := range cluster.Kinds() {
		awaitFeed(t, source, k, "is connected", isConnected)
	}
	s.CloseClientConnections()
	s.Close()
	for _, k := range cluster.Kinds() {
		f := awaitFeed(t, source, k, "is lost", func(f feed.Feed) bool { return !f.Connected })
		if f.Err == "" || f.Heard.IsZero() || f.Since.Before(f.Heard) {
			t.Errorf("the %s are %+v", k, f)
		}
	}
}

func nodeObject(name, addr string) *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr}}}}
}

func nodesOf(store *cluster.Store) string {
	var words []string
	for _, n := range store.Nodes() {
		words = append(words, fmt.Sprint(n.Name, n.Addrs))
	}
	return strings.Join(words, " ")
}

func awaitNodes(t *testing.T, store *cluster.Store, want string) {
	t.Helper()
	for limit := time.Now().Add(60 * time.Second); nodesOf(store) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the Nodes are %s, want %s", nodesOf(store), want)
		}
	}
}

// A heartbeat costs a decoded message: no revision, and nobody wakes.
func TestHeartbeatsOfNodesWakeNobody(t *testing.T) {
	const nodes, beats = 100, 20
	s := newAPIServer(t)
	for i := range nodes {
		s.put("nodes", nodeObject(fmt.Sprintf("n%03d", i), fmt.Sprintf("192.0.2.%d", i+1)))
	}
	store, _ := start(t, s)
	await(t, store, "")
	before := store.Take().Revision
	for len(store.Changed()) > 0 {
		<-store.Changed()
	}
	for beat := range beats {
		for i := range nodes {
			n := nodeObject(fmt.Sprintf("n%03d", i), fmt.Sprintf("192.0.2.%d", i+1))
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, LastHeartbeatTime: metav1.Unix(int64(beat), 0)}}
			s.put("nodes", n)
		}
	}
	s.put("nodes", nodeObject("n000", "198.51.100.1")) // behind all the others
	<-store.Changed()
	d := store.Take()
	if d.Revision != before+1 || len(d.Nodes) != 1 {
		t.Errorf("%d heartbeats and a change made %d revisions and %d changes, want one", nodes*beats, d.Revision-before, len(d.Nodes))
	}
}

func TestOnlyTheOwnNodeMayBeRead(t *testing.T) {
	s := newAPIServer(t)
	s.put("nodes", nodeObject("n1", "192.0.2.1"), nodeObject("n2", "192.0.2.2"))
	s.setRefuse("nodes", http.StatusForbidden)
	store, source := cluster.NewStore(), New(s.cfg, quietly()).OnNode("n1")
	run(t, source, store)
	await(t, store, "")
	awaitNodes(t, store, "n1[192.0.2.1]")
	f := awaitFeed(t, source, cluster.Nodes, "has the cure", func(f feed.Feed) bool { return f.Cure != "" })
	if f.Connected || !f.Seldom || f.Heard.IsZero() || !strings.Contains(f.Err, "only the own Node can be read") || !strings.Contains(f.Cure, "resources: [nodes], verbs: [list, watch]") {
		t.Errorf("the Nodes are %+v", f)
	}
	s.put("nodes", nodeObject("n1", "192.0.2.7"))
	awaitNodes(t, store, "n1[192.0.2.7]") // asked again
	s.setRefuse("nodes", 0)
	awaitNodes(t, store, "n1[192.0.2.7] n2[192.0.2.2]")
	awaitFeed(t, source, cluster.Nodes, "is connected", func(f feed.Feed) bool { return f.Connected && !f.Seldom })
	s.setRefuse("nodes", http.StatusForbidden)
	s.hangUp()
	s.put("nodes", nodeObject("n1", "192.0.2.8"))
	awaitNodes(t, store, "n1[192.0.2.8] n2[192.0.2.2]") // what is known of others stays
}

func TestAnOwnNodeThatMayNotBeReadIsNotSynced(t *testing.T) {
	s := newAPIServer(t)
	s.put("nodes", nodeObject("n1", "192.0.2.1"))
	s.setRefuse("nodes", http.StatusForbidden)
	s.setRefuse("n1", http.StatusForbidden)
	store, source := cluster.NewStore(), New(s.cfg, quietly()).OnNode("n1")
	run(t, source, store)
	await(t, store, "-nodes")
	awaitFeed(t, source, cluster.Nodes, "says why", func(f feed.Feed) bool { return !f.Seldom && strings.Contains(f.Err, "reading the own Node") })
}

// kubeconfig writes one with an embedded token.
func kubeconfig(t *testing.T, path, server, token string) {
	t.Helper()
	text := "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n" +
		"clusters: [{name: k, cluster: {server: '" + server + "', insecure-skip-tls-verify: true}}]\nusers: [{name: u, user: {token: " + token + "}}]\n"
	next := path + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// encrypted serves the same by HTTP/2: a kubeconfig's credentials are not sent in
// the clear.
func encrypted(t *testing.T, s *apiServer) *httptest.Server {
	t.Helper()
	front := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(front.Close)
	return front
}

func TestCredentialsThatAreReplacedAreReadAgain(t *testing.T) {
	for name, every := range map[string]time.Duration{"when they are refused": time.Hour, "when the file changes": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			s := newAPIServer(t)
			s.token = "token-of-before"
			front := encrypted(t, s)
			file := filepath.Join(t.TempDir(), "kubeconfig")
			kubeconfig(t, file, front.URL, "token-of-before")
			cfg, err := LoadConfig(file, "")
			if err != nil {
				t.Fatal(err)
			}
			log := &logBuffer{}
			store, source := cluster.NewStore(), New(cfg, slog.New(slog.NewTextHandler(log, nil))).Reloading(file, "")
			source.login.every = every
			run(t, source, store)
			await(t, store, "")
			if err := os.WriteFile(file, []byte("{"), 0o600); err != nil { // half written: what was read stays
				t.Fatal(err)
			}
			s.update(func() { s.token = "token-of-now" })
			s.hangUp()
			awaitFeed(t, source, cluster.Pods, "is refused", func(f feed.Feed) bool { return strings.Contains(f.Err, "does not accept the credentials") })
			kubeconfig(t, file, front.URL, "token-of-now")
			s.put("pods", pod("a", "10.0.0.1"))
			await(t, store, "a=10.0.0.1")
			awaitFeed(t, source, cluster.Pods, "is connected", isConnected)
			if strings.Contains(log.String(), "token-of-now") {
				t.Errorf("the log holds a secret: %s", log)
			}
		})
	}
}

func TestAnEmptyKubeconfigIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(file, ""); err == nil || !strings.Contains(err.Error(), file+" names no server") || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("got %v", err)
	}
}

// A connection that dies in silence: the relay keeps it open and carries nothing.
func TestAConnectionThatDiesInSilenceIsNoticedAndNamed(t *testing.T) {
	s := newAPIServer(t)
	front := encrypted(t, s)
	relay := newRelay(t, front.Listener.Addr().String())
	cfg := &rest.Config{Host: "https://" + relay.Addr().String(), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	log := &logBuffer{}
	store, source := cluster.NewStore(), New(cfg, slog.New(slog.NewTextHandler(log, nil)))
	run(t, source, store)
	await(t, store, "")
	awaitFeed(t, source, cluster.Pods, "is connected", isConnected)
	client, err := newHTTPClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c := transportOf(client.Transport).HTTP2; c == nil || c.SendPingTimeout+c.PingTimeout > 15*time.Second {
		t.Errorf("pings are %+v, want a dead connection to be noticed within 15 s", c)
	}
	relay.stall()
	awaitLog(t, log, "the connection of a watch broke")
	s.put("pods", pod("a", "10.0.0.1"))
	await(t, store, "a=10.0.0.1")
}

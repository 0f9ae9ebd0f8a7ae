// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// kubelets answer exec as the kubelets of all nodes do, and in the place of the agents say which version they
// enforce. An API server reaches them at one address.
type kubelets struct {
	port    int32
	newest  atomic.Uint64
	asked   atomic.Int64
	fails   atomic.Int64
	ended   <-chan struct{} // the test
	at      sync.WaitGroup  // questions that are being answered
	mu      sync.Mutex
	refuses map[string]int // by pod: how many times more it says an older version
}

// serve begins to answer, until the test ends.
func (k *kubelets) serve(t *testing.T) {
	t.Helper()
	k.refuses = map[string]int{}
	k.ended = t.Context().Done()
	s := httptest.NewTLSServer(k)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		k.at.Wait() // the server does not, for streams
	})
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(u.Port(), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	k.port = int32(port)
}

// ServeHTTP answers /exec/NAMESPACE/POD/CONTAINER.
func (k *kubelets) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.at.Add(1)
	defer k.at.Done()
	k.asked.Add(1)
	if err := k.exec(w, r); err != nil {
		k.fails.Add(1)
	}
}

func (k *kubelets) exec(w http.ResponseWriter, r *http.Request) error {
	parts := strings.Split(r.URL.Path, "/")
	if len(parts) != 5 || parts[1] != "exec" || r.URL.Query().Get("command") != agentProgram {
		http.NotFound(w, r)
		return fmt.Errorf("asked for %s", r.URL)
	}
	answer, err := json.Marshal(k.enforced(parts[3]))
	if err != nil {
		return err
	}
	if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
		return err
	}
	type opened struct {
		httpstream.Stream
		replied <-chan struct{}
	}
	come := make(chan opened, 3)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replied <-chan struct{}) error {
		come <- opened{s, replied}
		return nil
	})
	if conn == nil {
		return fmt.Errorf("no streams for %s", r.URL)
	}
	defer conn.Close()
	streams := map[string]httpstream.Stream{}
	for len(streams) < 3 {
		select {
		case s := <-come:
			<-s.replied
			streams[s.Headers().Get(corev1.StreamType)] = s
		case <-k.ended:
			return fmt.Errorf("the test ends before %s", r.URL)
		case <-time.After(time.Minute):
			return fmt.Errorf("%d streams for %s", len(streams), r.URL)
		}
	}
	if _, err := streams[corev1.StreamTypeStdout].Write(answer); err != nil {
		return err
	}
	for _, name := range []string{corev1.StreamTypeStdout, corev1.StreamTypeStderr} {
		if err := streams[name].Close(); err != nil {
			return err
		}
	}
	return json.NewEncoder(streams[corev1.StreamTypeError]).Encode(metav1.Status{Status: metav1.StatusSuccess})
}

func (k *kubelets) enforced(pod string) enforcedNode {
	k.mu.Lock()
	defer k.mu.Unlock()
	version := k.newest.Load()
	if k.refuses[pod] > 0 {
		k.refuses[pod]--
		version = 1
	}
	return enforcedNode{Schema: enforcedSchema, Node: pod, Version: "0.1.0", PolicyVersion: strconv.FormatUint(version, 10),
		Ready: true, Pods: 30, Isolated: 12}
}

// behind lets so many agents say an older version so many times.
func (k *kubelets) behind(agents, times int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range agents {
		k.refuses[manyPod(i)] = times
	}
}

// each calls f with 0 to n-1, so many at the same time.
func each(ctx context.Context, n, workers int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kubectl/page"
)

// uiAt runs ui on files for the time of the test, and returns what asks it a question.
func uiAt(t *testing.T, args ...string) (ask func(path string) (status int, answer string), end func() int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int, 1)
	var said strings.Builder
	go func() {
		status := Run(ctx, "test", append([]string{"ui"}, args...), Streams{In: strings.NewReader(""), Out: in, Err: &said})
		in.CloseWithError(fmt.Errorf("exit status %d: %s", status, said.String()))
		ended <- status
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	base, token, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "Open ")), "/#")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	end = func() int {
		stop()
		return <-ended
	}
	return func(path string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(page.TokenHeader, token)
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}, end
}

// The page answers as the commands do.
func TestThePageAnswersAsTheCommandsDo(t *testing.T) {
	ask, end := uiAt(t, "-f", "testdata/shop.yaml", "-n", "shop")
	words := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	for path, line := range map[string]string{
		"/api/explain?src=shop/client&dst=shop/web&port=tcp:8080": "explain shop/client shop/web:8080",
		"/api/explain?src=client&dst=svc/shop/web:80":             "explain client svc/shop/web:80",
		"/api/explain?src=outside&dst=web:http":                   "explain outside web:http",
		"/api/explain?src=batch/client&dst=shop/web&port=icmp":    "explain batch/client shop/web:icmp",
		"/api/end?name=shop/client":                               "explain shop/client",
	} {
		status, text := ask(path)
		var got explainValue
		if err := json.Unmarshal([]byte(text), &got); err != nil || status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, text)
			continue
		}
		_, want, _ := commandLine(t, append(strings.Fields(line), "-f", "testdata/shop.yaml", "-n", "shop")...)
		if words(got.Text) != words(want) || strings.Contains(strings.SplitN(want, "\n", 2)[0], "allowed") != got.Allowed {
			t.Errorf("%s:\n%s\nwant\n%s", path, got.Text, want)
		}
	}
	_, text := ask("/api/policies")
	for _, want := range []string{`"name":"shop/other","isolates":["ingress","egress"],"pods":0`, "did you mean app=web? [no-subject]"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	for path, want := range map[string]string{"/api/flows": noAgents, "/api/status": noAgents, "/api/graph?port=nine": "--port",
		"/api/pairs?src=x&dst=y": "read again", "/api/graph?first=-1": "want a number",
		"/api/graph?first=5x": "want a number", "/api/end?name=node/node1": "is no pod",
		"/api/explain?src=a&dst=b": "no pod or workload shop/a", "/api/pairs?src=host:203.0.113.10&dst=host:203.0.113.10": "outside"} {
		if status, text := ask(path); status != http.StatusUnprocessableEntity || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", path, status, text, want)
		}
	}
	if status := end(); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// What changed in the files is there after they were read again; what cannot be read changes nothing.
func TestThePageReadsAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shop.yaml")
	write := func(pods ...string) {
		text := ""
		for _, name := range pods {
			text += "---\n{apiVersion: v1, kind: Pod, metadata: {name: " + name + ", namespace: shop}, spec: {containers: [{name: c, image: x}]}}\n"
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	ask, end := uiAt(t, "-f", path)
	defer end()
	write("one", "two")
	if _, text := ask("/api/about"); !strings.Contains(text, `"pods":1,`) {
		t.Error(text)
	}
	if _, text := ask("/api/read"); !strings.Contains(text, `"pods":2,`) {
		t.Error(text)
	}
	write()
	if status, text := ask("/api/read"); status != http.StatusUnprocessableEntity || !strings.Contains(text, "no pods in") {
		t.Errorf("%d %s", status, text)
	}
	if _, text := ask("/api/graph?open=shop"); !strings.Contains(text, `"name":"shop/two"`) {
		t.Error(text)
	}
}

func TestThePageIsForThisMachineOnly(t *testing.T) {
	for _, args := range [][]string{{"--address", "0.0.0.0"}, {"--address", "192.0.2.1"}, {"--address", "localhost"}, {"--port", "70000"},
		{"--address", "127.0.0.1", "extra"}} {
		status, out, said := commandLine(t, append([]string{"ui", "-f", "testdata/shop.yaml"}, args...)...)
		if status != statusUsage || out != "" || said == "" {
			t.Errorf("%q: exit status %d, %q, %q", args, status, out, said)
		}
	}
	// A port that is taken is named.
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	status, _, said := commandLine(t, "ui", "-f", "testdata/shop.yaml", "--port", port)
	if status != statusUsage || !strings.Contains(said, "--port") {
		t.Errorf("exit status %d, %q", status, said)
	}
}

// bigScene has 5,000 pods of 500 workloads in 100 namespaces.
func bigScene(t testing.TB) *uiScene {
	t.Helper()
	snap := &cluster.Snapshot{}
	workload := map[cluster.Key]string{}
	for i := range 5000 {
		ns, app := fmt.Sprintf("team-%02d", i%100), fmt.Sprintf("app-%d", i%500)
		if i < 100 {
			snap.Namespaces = append(snap.Namespaces, &cluster.Namespace{Name: ns})
		}
		p := &cluster.Pod{Key: cluster.Key{Namespace: ns, Name: fmt.Sprintf("%s-%d", app, i)}, Node: fmt.Sprintf("node-%d", i%100),
			Labels: cluster.NewLabels(map[string]string{"app": app, "pod": fmt.Sprint(i)}),
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)}),
				netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(i / 250), 15: byte(1 + i%250)})}}
		snap.Pods, workload[p.Key] = append(snap.Pods, p), app
	}
	for i := range 500 { // each application may be reached by the next one
		one := func(i int) cluster.Selector {
			return cluster.NewSelector(labels.SelectorFromSet(labels.Set{"app": fmt.Sprintf("app-%d", i%500)}))
		}
		every := cluster.Everything()
		snap.Policies = append(snap.Policies, &cluster.Policy{
			Key:     cluster.Key{Namespace: fmt.Sprintf("team-%02d", i%100), Name: fmt.Sprintf("app-%d", i)},
			Subject: one(i), IsolatesIngress: true, Ingress: []cluster.Rule{{
				Peers: cluster.Peers{List: []cluster.Peer{{Namespaces: &every, Pods: one(i + 1)}}},
				Ports: cluster.Ports{List: []cluster.Port{{Protocol: cluster.TCP, First: 80, Last: 80}}}}}})
	}
	sc := newScene(snap, nil)
	sc.workload = workload
	return newUIScene(sc, time.Now())
}

// An answer about a large cluster has what is shown, and not more.
func TestAnswersAboutALargeClusterAreSmall(t *testing.T) {
	sc := bigScene(t)
	size := func(f func(context.Context, url.Values) (any, error), query string) (int, string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		v, err := f(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return len(text), string(text)
	}
	n, text := size(sc.graphOf, "")
	if n > 250_000 || !strings.Contains(text, `"total":102,"first":0`) || strings.Count(text, `"id"`) != maxShown {
		t.Errorf("the first graph has %d bytes: %.300s", n, text)
	}
	if n, text = size(sc.graphOf, "open=team-07&first=60"); strings.Count(text, `"id"`) != 46 || n > 250_000 {
		t.Errorf("the rest has %d bytes and %d nodes", n, strings.Count(text, `"id"`))
	}
	if n, text = size(sc.graphOf, "open=team-07&match=TEAM-07"); strings.Count(text, `"id"`) != 5 {
		t.Errorf("what matches has %d bytes: %.300s", n, text)
	}
	if n, text = size(sc.pairsOf, "src=namespace:team-01&dst=namespace:team-02"); n > 50_000 || !strings.Contains(text, `"total":25`) {
		t.Errorf("the pairs have %d bytes: %.300s", n, text)
	}
	if n, _ = size(sc.searchOf, "q=app"); n > 10_000 {
		t.Errorf("what is found has %d bytes", n)
	}
}

// Pods of a workload that all differ, as those of a StatefulSet, are explained by one flow of each
// verdict, and not by every pair.
func TestManyDifferentPodsAreExplainedByExamples(t *testing.T) {
	sc := bigScene(t)
	q, err := url.ParseQuery("src=team-03/app-4&dst=team-04/app-3&port=tcp:80")
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][2]string{{"team-03/app-3", "team-04/app-4"}, {"team-04/app-4", "team-03/app-3"}} {
		q.Set("src", names[0])
		q.Set("dst", names[1])
		v, err := sc.explainOf(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		text := v.(explainValue).Text
		if strings.Count(text, "\n  egress of") != 1 || !strings.Contains(text, "of 100 pairs of pods that differ") {
			t.Errorf("%s", text)
		}
	}
}

// Questions end with whoever asks.
func TestAQuestionEndsWithItsContext(t *testing.T) {
	s := &uiState{source: newSource(Streams{}), reading: make(chan struct{}, 1), asking: make(chan struct{}, 1)}
	ctx, end := context.WithCancel(t.Context())
	_, done, err := s.take(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	end()
	if _, _, err := s.take(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// What the page costs for 5,000 pods; docs/performance.md has the figures.
func BenchmarkThePage(b *testing.B) {
	ask := func(b *testing.B, f func(context.Context, url.Values) (any, error), query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			b.Fatal(err)
		}
		v, err := f(b.Context(), q)
		if err != nil {
			b.Fatal(err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(text)), "bytes")
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			ask(b, bigScene(b).graphOf, "")
		}
	})
	sc := bigScene(b)
	ask(b, sc.graphOf, "")
	b.Run("policies", func(b *testing.B) {
		for b.Loop() {
			sc.findings = nil
			ask(b, sc.policiesOf, "")
		}
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			ask(b, sc.graphOf, "open=team-03&open=team-04")
		}
	})
	b.Run("click", func(b *testing.B) {
		for b.Loop() {
			ask(b, sc.pairsOf, "src=namespace:team-03&dst=namespace:team-04")
			ask(b, sc.explainOf, "src=team-03/app-3&dst=team-04/app-4&port=tcp:80")
		}
	})
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.Logf("%d MB in use", m.HeapInuse>>20)
	runtime.KeepAlive(sc)
}

// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const token = "0123456789abcdefghij"

// handlerOf serves these answers at 127.0.0.1:8088.
func handlerOf(t *testing.T, answers map[string]Answer, streams ...string) http.Handler {
	t.Helper()
	h, err := New(Options{Address: netip.MustParseAddrPort("127.0.0.1:8088"), Token: token, Answers: answers, Streams: streams})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func echo() map[string]Answer {
	return map[string]Answer{
		"echo":  func(_ context.Context, q url.Values) (any, error) { return q, nil },
		"fails": func(context.Context, url.Values) (any, error) { return nil, errors.New("no such <pod>") },
		"chan":  func(context.Context, url.Values) (any, error) { return make(chan int), nil },
	}
}

// ask sends a request as the page does; change changes it before.
func ask(h http.Handler, path string, change func(*http.Request)) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8088"+path, nil)
	r.Header.Set(TokenHeader, token)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	var b strings.Builder
	buffer := make([]byte, 1<<20)
	for {
		n, err := r.Body.Read(buffer)
		b.Write(buffer[:n])
		if err != nil {
			return b.String()
		}
	}
}

// Who is refused, and with which status.
func TestOnlyThePageIsAnswered(t *testing.T) {
	h := handlerOf(t, echo())
	head := func(pairs ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				r.Header.Set(pairs[i], pairs[i+1])
			}
		}
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	method := func(name string) func(*http.Request) { return func(r *http.Request) { r.Method = name } }
	for _, tt := range []struct {
		name, path string
		change     func(*http.Request)
		want       int
	}{
		{"the page", "/", nil, 200},
		{"a script", "/js/main.js", nil, 200},
		{"a question", "/api/echo?a=b", nil, 200},
		{"by the other name of the loopback", "/api/echo", host("localhost:8088"), 200},
		{"from the page", "/api/echo", head("Sec-Fetch-Site", "same-origin"), 200},
		{"the page, written into the address bar", "/", head("Sec-Fetch-Site", "none", "Sec-Fetch-Dest", "document"), 200},
		{"the page by a link elsewhere", "/", head("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest",
			"document"), 200},
		{"DNS rebinding", "/api/echo", host("evil.example:8088"), 403},
		{"DNS rebinding, the page", "/", host("evil.example:8088"), 403},
		{"another port", "/api/echo", host("127.0.0.1:9999"), 403},
		{"another loopback address", "/", host("127.0.0.2:8088"), 403},
		{"the address without its port", "/", host("127.0.0.1"), 403},
		{"the other loopback address", "/", host("[::1]:8088"), 403},
		{"a name with a dot at its end", "/api/echo", host("localhost.:8088"), 403},
		{"no host", "/", host(""), 403},
		{"no token", "/api/echo", func(r *http.Request) { r.Header.Del(TokenHeader) }, 401},
		{"another token", "/api/echo", head(TokenHeader, token+"x"), 401},
		{"an empty token", "/api/echo", head(TokenHeader, ""), 401},
		{"the token as a cookie", "/api/echo", head(TokenHeader, "", "Cookie", "token="+token), 401},
		{"the token in the address", "/api/echo?token=" + token, head(TokenHeader, ""), 401},
		{"no token, no such question", "/api/none", head(TokenHeader, ""), 401},
		{"no such question", "/api/none", nil, 404},
		{"another site asks", "/api/echo", head("Sec-Fetch-Site", "cross-site"), 403},
		{"another port of this machine asks", "/api/echo", head("Sec-Fetch-Site", "same-site"), 403},
		{"another site takes a script", "/js/main.js", head("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "script"), 403},
		{"a frame elsewhere", "/", head("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), 403},
		{"a service worker", "/js/main.js", head("Service-Worker", "script", "Sec-Fetch-Site", "same-origin"), 403},
		{"a service worker that was left", "/worker.js", head("Service-Worker", "script"), 403},
		{"a write", "/api/echo", method("POST"), 405},
		{"a preflight", "/api/echo", method("OPTIONS"), 405},
		{"a deletion", "/", method("DELETE"), 405},
		{"a long question", "/api/echo?a=" + strings.Repeat("x", 9<<10), nil, 414},
		{"a list of files", "/js/", nil, 404},
		{"a file that is not there", "/js/none.js", nil, 404},
		{"a file elsewhere", "/../page.go", nil, 404},
		{"a wrong query", "/api/echo?a=%zz", nil, 422},
		{"a question without an answer", "/api/fails", nil, 422},
		{"an answer that cannot be written", "/api/chan", nil, 500},
	} {
		r := ask(h, tt.path, tt.change)
		if r.StatusCode != tt.want {
			t.Errorf("%s: %d, want %d: %s", tt.name, r.StatusCode, tt.want, body(t, r))
		}
		secured(t, tt.name, r)
	}
}

// A service worker of an earlier program at this port is removed when the browser asks for its script, and
// nobody else can have what the browser stores removed.
func TestServiceWorkersAreRemoved(t *testing.T) {
	h := handlerOf(t, echo())
	for _, tt := range []struct {
		name, host, worker, site, want string
	}{
		{"a browser", "127.0.0.1:8088", "script", "same-origin", `"storage"`},
		{"a browser that does not say from where", "localhost:8088", "script", "", `"storage"`},
		{"another site", "127.0.0.1:8088", "script", "cross-site", ""},
		{"another host", "evil.example:8088", "script", "same-origin", ""},
		{"the page", "127.0.0.1:8088", "", "same-origin", ""},
	} {
		r := ask(h, "/worker.js", func(r *http.Request) {
			r.Host = tt.host
			r.Header.Set("Service-Worker", tt.worker)
			r.Header.Set("Sec-Fetch-Site", tt.site)
		})
		if got := r.Header.Get("Clear-Site-Data"); got != tt.want || r.StatusCode < 400 {
			t.Errorf("%s: status %d, Clear-Site-Data %q, want %q", tt.name, r.StatusCode, got, tt.want)
		}
	}
}

// secured checks what is on every answer.
func secured(t *testing.T, name string, r *http.Response) {
	t.Helper()
	for header, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"X-Frame-Options": "DENY", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
		"Cross-Origin-Opener-Policy": "same-origin"} {
		if got := r.Header.Get(header); got != want {
			t.Errorf("%s: %s is %q, want %q", name, header, got, want)
		}
	}
	csp := r.Header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none';", "script-src 'self';", "frame-ancestors 'none'", "base-uri 'none'",
		"form-action 'none'", "require-trusted-types-for 'script'; trusted-types 'none'"} {
		if !strings.Contains(csp, part) {
			t.Errorf("%s: no %s in %q", name, part, csp)
		}
	}
	if strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") || strings.Contains(csp, "*") {
		t.Errorf("%s: %q", name, csp)
	}
	if r.Header.Get("Access-Control-Allow-Origin") != "" || len(r.Cookies()) > 0 {
		t.Errorf("%s: %v", name, r.Header)
	}
}

// Answers are JSON without characters that mean something in HTML, and problems are, too.
func TestAnswersAreEscaped(t *testing.T) {
	h := handlerOf(t, echo())
	r := ask(h, "/api/echo?a="+url.QueryEscape("<script>&'\u2028"), nil)
	text := body(t, r)
	if r.Header.Get("Content-Type") != "application/json; charset=utf-8" || strings.ContainsAny(text, "<>&\u2028") {
		t.Errorf("%s: %s", r.Header.Get("Content-Type"), text)
	}
	var problem Problem
	text = body(t, ask(h, "/api/fails", nil))
	if err := json.Unmarshal([]byte(text), &problem); err != nil || problem.Problem != "no such <pod>" || strings.Contains(text, "<") {
		t.Errorf("%s: %v", text, err)
	}
}

// So many are answered at the same time, and a few may wait; streams have a place of their own.
func TestQuestionsAreBounded(t *testing.T) {
	started, release := make(chan struct{}, 100), make(chan struct{})
	var most, now atomic.Int32
	h := handlerOf(t, map[string]Answer{"slow": func(context.Context, url.Values) (any, error) {
		if n := now.Add(1); n > maxAnswering {
			most.Store(n)
		}
		started <- struct{}{}
		<-release
		now.Add(-1)
		return nil, nil
	}})
	var asked sync.WaitGroup
	statuses := make(chan int, 100)
	for range 40 {
		asked.Go(func() { statuses <- ask(h, "/api/slow", nil).StatusCode })
	}
	refused := 0
	for refused < 40-maxAnswering-maxWaiting { // the others are answered, or wait
		if s := <-statuses; s != http.StatusServiceUnavailable {
			t.Fatalf("status %d", s)
		}
		refused++
	}
	for range maxAnswering {
		<-started
	}
	close(release)
	asked.Wait()
	if n := most.Load(); n > 0 || len(started) != maxWaiting {
		t.Errorf("%d are answered at once, want %d; %d waited, want %d", n, maxAnswering, len(started), maxWaiting)
	}
}

// Questions that wait for news take no room from others.
func TestStreamsHaveRoomOfTheirOwn(t *testing.T) {
	started, release := make(chan struct{}, 100), make(chan struct{})
	h := handlerOf(t, map[string]Answer{"news": func(context.Context, url.Values) (any, error) {
		started <- struct{}{}
		<-release
		return nil, nil
	}, "quick": func(context.Context, url.Values) (any, error) { return "yes", nil }}, "news")
	var asked sync.WaitGroup
	for range maxAnswering {
		asked.Go(func() { ask(h, "/api/news", nil) })
	}
	for range maxAnswering {
		<-started
	}
	for range maxWaiting { // these wait until others end
		asked.Go(func() { ask(h, "/api/news", nil) })
	}
	for inner := h.(*handler); len(inner.streaming.waiting) < maxWaiting; {
		time.Sleep(time.Millisecond)
	}
	for range maxAnswering + 1 {
		if r := ask(h, "/api/quick", nil); r.StatusCode != http.StatusOK {
			t.Errorf("status %d", r.StatusCode)
		}
	}
	close(release)
	asked.Wait()
}

// Who goes away while it waits makes room.
func TestWhoeverGoesMakesRoom(t *testing.T) {
	release := make(chan struct{})
	h := handlerOf(t, map[string]Answer{"slow": func(context.Context, url.Values) (any, error) {
		<-release
		return nil, nil
	}})
	var asked sync.WaitGroup
	for range maxAnswering {
		asked.Go(func() { ask(h, "/api/slow", nil) })
	}
	inner := h.(*handler)
	for len(inner.questions.answering) < maxAnswering || len(inner.questions.waiting) > 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, end := context.WithCancel(t.Context())
	for range maxWaiting {
		asked.Go(func() { ask(h, "/api/slow", func(r *http.Request) { *r = *r.WithContext(ctx) }) })
	}
	for len(inner.questions.waiting) < maxWaiting {
		time.Sleep(time.Millisecond)
	}
	end()
	for len(inner.questions.waiting) > 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	asked.Wait()
}

// Browsers leave out port 80.
func TestThePortOfTheWebCanBeLeftOut(t *testing.T) {
	for at, names := range map[string]map[string]int{
		"127.0.0.1:80": {"127.0.0.1": 200, "127.0.0.1:80": 200, "localhost": 200, "localhost:80": 200, "localhost.": 403,
			"[::1]": 403, "evil.example": 403},
		"[::1]:80": {"[::1]": 200, "[::1]:80": 200, "localhost": 200, "::1": 403, "127.0.0.1": 403},
		"[::1]:81": {"[::1]:81": 200, "[::1]": 403, "localhost": 403},
	} {
		h, err := New(Options{Address: netip.MustParseAddrPort(at), Token: token, Answers: echo()})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range names {
			if r := ask(h, "/api/echo", func(r *http.Request) { r.Host = name }); r.StatusCode != want {
				t.Errorf("%s at %s: %d, want %d", name, at, r.StatusCode, want)
			}
		}
	}
}

// Whoever asks is told when an answer, or the room for it, takes too long.
func TestALongAnswerIsAProblemAndNoBrokenConnection(t *testing.T) {
	release := make(chan struct{})
	h := handlerOf(t, map[string]Answer{"long": func(ctx context.Context, _ url.Values) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, "stuck": func(context.Context, url.Values) (any, error) {
		<-release
		return nil, nil
	}})
	inner := h.(*handler)
	inner.longest = 300 * time.Millisecond
	server := httptest.NewUnstartedServer(h)
	server.Config.WriteTimeout = 100 * time.Millisecond // shorter than an answer, as that of the page
	server.Start()
	defer server.Close()
	inner.hosts = append(inner.hosts, server.Listener.Addr().String())
	told := func() {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/long", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(TokenHeader, token)
		got, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Body.Close()
		if text := body(t, got); got.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(text, "longer than 300ms") {
			t.Errorf("%d %s", got.StatusCode, text)
		}
	}
	told()
	var asked sync.WaitGroup
	for range maxAnswering {
		asked.Go(func() { ask(h, "/api/stuck", nil) })
	}
	for len(inner.questions.answering) < maxAnswering {
		time.Sleep(time.Millisecond)
	}
	told()
	close(release)
	asked.Wait()
}

func TestOnlyLoopbackAddressesAreTaken(t *testing.T) {
	for text, ok := range map[string]bool{"127.0.0.1": true, "127.1.2.3": true, "::1": true, "::ffff:127.0.0.1": true,
		"0.0.0.0": false, "::": false, "192.0.2.1": false, "localhost": false, "": false, "fe80::1%lo": false, "::1%lo": false} {
		if _, err := ParseLoopback(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, o := range []Options{{}, {Address: netip.MustParseAddrPort("127.0.0.1:80")},
		{Address: netip.MustParseAddrPort("127.0.0.1:0"), Token: "x"},
		{Address: netip.MustParseAddrPort("192.0.2.1:80"), Token: "x"}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is served", o)
		}
	}
}

func TestTokensDiffer(t *testing.T) {
	one, other := NewToken(), NewToken()
	if one == other || len(one) < 43 {
		t.Errorf("%q, %q", one, other)
	}
	at := netip.MustParseAddrPort("[::1]:80")
	if got := URL(at, one); got != "http://[::1]:80/#"+one {
		t.Error(got)
	}
}

// The page is small, needs nothing else, and never makes markup, style or code of a text.
func TestThePageIsSmallAndNeedsNothing(t *testing.T) {
	const most = 300_000
	foreign := regexp.MustCompile(`(?i)//[a-z0-9.-]+\.[a-z]{2,}|https?:|@import|url\(|\son[a-z]+=|\sstyle=|<style|data:`)
	unsafe := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser|` +
		`createContextualFragment|` +
		`\.(src|href|srcdoc|action)\s*=|setAttributeNS|\.style\b|localStorage|document\.cookie`)
	inline := regexp.MustCompile(`<script[^>]*>[^<]`)
	sum := 0
	err := fs.WalkDir(Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(Files(), name)
		if err != nil {
			return err
		}
		sum += len(text)
		clean := strings.NewReplacer("http://www.w3.org/2000/svg", "").Replace(string(text))
		for _, bad := range []*regexp.Regexp{foreign, unsafe, inline} {
			if found := bad.FindString(clean); found != "" {
				t.Errorf("%s has %q", name, found)
			}
		}
		if !strings.Contains(string(text), "SPDX-License-Identifier") && !strings.HasSuffix(name, ".svg") {
			t.Errorf("%s has no licence", name)
		}
		return nil
	})
	if err != nil || sum > most || sum < 10_000 {
		t.Errorf("%d bytes, want at most %d: %v", sum, most, err)
	}
	t.Logf("%d bytes", sum)
}

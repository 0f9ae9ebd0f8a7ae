// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podwall/podwall/internal/web"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "rewrite the generated page")
	goleak.VerifyTestMain(m)
}

// get fetches a page without keeping the connection.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// run starts a server and returns a function that ends it and its error.
func run(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

func TestOneServerAnswersForBothWhenTheAddressesAreEqual(t *testing.T) {
	s, err := enforcing().Listen(Endpoints{Health: "127.0.0.1:0", Metrics: "127.0.0.1:0", MetricsPath: "/m"})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	if len(s.Addrs()) != 1 {
		t.Fatalf("open addresses = %v, want one", s.Addrs())
	}
	for path, want := range map[string]struct {
		code int
		part string
	}{
		"/healthz": {200, "OK"}, "/readyz": {200, "ready"}, "/statusz": {200, Schema},
		"/m": {200, "podwall_applied_revision 7"}, "/metrics": {404, ""}, "/": {404, ""},
	} {
		code, body := get(t, "http://"+s.Addrs()[0].String()+path)
		if code != want.code || !strings.Contains(body, want.part) {
			t.Errorf("%s = %d %.60q, want %d with %q", path, code, body, want.code, want.part)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestTwoAddressesAreTwoServersThatDoNotMix(t *testing.T) {
	s, err := enforcing().Listen(Endpoints{Health: "127.0.0.1:0", Metrics: "localhost:0", MetricsPath: "/metrics"})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	health, metrics := "http://"+s.Addrs()[0].String(), "http://"+s.Addrs()[1].String()
	for url, want := range map[string]int{
		health + "/healthz": 200, health + "/metrics": 404, metrics + "/metrics": 200, metrics + "/statusz": 404,
	} {
		if code, _ := get(t, url); code != want {
			t.Errorf("%s = %d, want %d", url, code, want)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestAPortInUseIsAClearErrorAndLeavesNothingOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// An address of its own: a port that was free a moment ago may be somebody's.
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	health := net.JoinHostPort("127.83.19.7", port)
	err = newObserver(time.Second).Serve(t.Context(), Endpoints{Health: health, Metrics: taken.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "the port is in use by another program") || !strings.Contains(err.Error(), "--metrics-port") {
		t.Fatalf("error = %v, want that the port is in use and which flag changes it", err)
	}
	again, err := net.Listen("tcp", health)
	if err != nil {
		t.Fatalf("the health port stayed open: %v", err)
	}
	again.Close()
}

func TestWithEverythingOffServeOnlyWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newObserver(time.Second).Serve(ctx, Endpoints{}); err != nil {
		t.Errorf("error = %v, want nil", err)
	}
}

// Who can reach the port can open connections. They are bounded, and a probe is
// answered all the same.
func TestConnectionsThatWaitAreBounded(t *testing.T) {
	s, err := enforcing().Listen(Endpoints{Health: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, s)
	addr := s.Addrs()[0].String()
	var open []net.Conn
	for i := range 4 * web.MaxWaiting {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
		if i%2 == 0 { // half of them ask once
			if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				t.Fatalf("connection %d is not answered: %v", i, err)
			}
		}
	}
	if code, _ := get(t, "http://"+addr+"/healthz"); code != http.StatusOK {
		t.Errorf("a probe is answered %d", code)
	}
	for _, c := range open[:web.MaxWaiting] {
		if err := c.SetReadDeadline(time.Now().Add(4 * time.Second)); err != nil { // the server itself ends what says nothing after five
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("a connection that waits longer than hundreds of others is open")
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

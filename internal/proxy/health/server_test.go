// SPDX-License-Identifier: Apache-2.0

//go:build linux

package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/proxy/service"
)

func TestMain(m *testing.M) { entry.Try(m) }

// alone runs a test where nobody else takes ports. No goroutine may be left.
func alone(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	apart.Run(t, func(t *testing.T) {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		defer goleak.VerifyNone(t)
		f(t)
	})
}

// free returns a port that nobody has.
func free(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// start runs a server until stop.
func start(t *testing.T, o Options) (s *Server, stop func()) {
	t.Helper()
	s = New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	return s, stop
}

// page returns the status and the body; 0 if nobody answers.
func page(at, path string) (int, string) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + at + path)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header.Get("X-Load-Balancing-Endpoint-Weight") + " " + string(body)
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func answers(at, path string, status int) func() bool {
	return func() bool { got, _ := page(at, path); return got == status }
}

func of(port uint16, name string, ready int) service.Health {
	return service.Health{Port: port, Service: cluster.Key{Namespace: "shop", Name: name}, Ready: ready}
}

func TestPortsAreThoseThatWereAskedForLast(t *testing.T) { alone(t, portsAreThoseThatWereAskedForLast) }

func portsAreThoseThatWereAskedForLast(t *testing.T) {
	one, two, own := free(t), free(t), free(t)
	at := func(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	s, stop := start(t, Options{Address: fmt.Sprintf(":%d", own)})
	until(t, "the proxy's port answers that it starts", answers(at(own), "/healthz", 503))
	s.SetProxy(Proxy{Synced: time.Now()})
	if status, body := page(at(own), "/healthz"); status != 200 {
		t.Errorf("/healthz is %d %s", status, body)
	}
	s.SetServices([]service.Health{of(one, "a", 1), of(two, "b", 0)})
	until(t, "the first port answers", answers(at(one), "/", 200))
	until(t, "the second port answers", answers(at(two), "/any", 503))
	s.SetServices([]service.Health{of(one, "a", 0), of(two, "c", 7)})
	if status, body := page(at(one), "/"); status != 503 || !strings.HasPrefix(body, "0 ") {
		t.Errorf("without an endpoint: %d %s", status, body)
	}
	if status, body := page(at(two), "/"); status != 200 || !strings.HasPrefix(body, `7 {"service":{"namespace":"shop","name":"c"}`) {
		t.Errorf("the port of another Service: %d %s", status, body)
	}
	s.SetProxy(Proxy{Synced: time.Now(), Leaving: true})
	for path, want := range map[string]int{"/healthz": 503, "/livez": 200, "/": 404} {
		if status, body := page(at(own), path); status != want {
			t.Errorf("%s of a node that is leaving: %d %s, want %d", path, status, body, want)
		}
	}
	s.SetServices([]service.Health{of(two, "c", 7)})
	until(t, "the port that nobody wants is closed", answers(at(one), "/", 0))
	if status, _ := page(at(two), "/"); status != 200 {
		t.Error("the other port is closed, too")
	}
	if list := s.Problems(); len(list) > 0 {
		t.Errorf("problems: %v", list)
	}
	stop()
	for _, port := range []uint16{two, own} {
		if status, _ := page(at(port), "/"); status != 0 {
			t.Errorf("port %d is open after the end", port)
		}
	}
}

func TestBothFamiliesAreAnswered(t *testing.T) { alone(t, bothFamiliesAreAnswered) }

func bothFamiliesAreAnswered(t *testing.T) {
	port := free(t)
	s, stop := start(t, Options{})
	defer stop()
	s.SetProxy(Proxy{Synced: time.Now()})
	s.SetServices([]service.Health{of(port, "a", 1)})
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		until(t, "the port answers at "+host, answers(fmt.Sprintf("%s:%d", host, port), "/", 200))
	}
}

// A port that somebody has is a problem, hinders no other, and is opened once it is free.
func TestAPortThatIsTaken(t *testing.T) { alone(t, aPortThatIsTaken) }

func aPortThatIsTaken(t *testing.T) {
	other, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	taken, good := uint16(other.Addr().(*net.TCPAddr).Port), free(t)
	var changed atomic.Int32
	s, stop := start(t, Options{Address: other.Addr().String(), Retry: 20 * time.Millisecond, Changed: func() { changed.Add(1) }})
	defer stop()
	s.SetProxy(Proxy{Synced: time.Now()})
	s.SetServices([]service.Health{of(taken, "a", 1), of(good, "b", 1)})
	until(t, "the free port answers", answers(fmt.Sprintf("127.0.0.1:%d", good), "/", 200))
	until(t, "both are problems", func() bool { return len(s.Problems()) == 2 })
	for i, want := range [][2]string{{fmt.Sprintf("health-check node port %d", taken), "Service shop/a"},
		{"health port " + other.Addr().String(), "load balancers"}} {
		if p := s.Problems()[min(i, 1)]; p.Subject != want[0] || !strings.Contains(p.Text, want[1]) ||
			!strings.Contains(p.Cure, "stop the program") {
			t.Errorf("problem %d is %+v, want %v", i, p, want)
		}
	}
	told := changed.Load()
	time.Sleep(100 * time.Millisecond)
	if n := changed.Load(); n != told || n < 1 {
		t.Errorf("told %d times, then %d more", told, n-told)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "it answers", answers(fmt.Sprintf("127.0.0.1:%d", taken), "/", 200))
	until(t, "one is left", func() bool { return len(s.Problems()) == 1 && changed.Load() > told })
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package process

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// TestMain runs the tests where they may make network namespaces.
func TestMain(m *testing.M) { entry.Main(m) }

func TestStoppingAProcessEndsWhatItStarted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "child")
	p := script(t, newNS(t), "trap '' TERM; sleep 60 & trap 'exit 0' TERM; echo $! > "+file+".new; mv "+file+".new "+file+"; wait")
	var child string
	err := Until(t.Context(), "the child", func(context.Context) (bool, error) {
		text, err := os.ReadFile(file)
		child = strings.TrimSpace(string(text))
		return err == nil, nil
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		state, err := os.ReadFile("/proc/" + child + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		if err := exec.Command("true").Run(); err != nil {
			t.Fatal(err)
		}
	}
	t.Errorf("process %s, which does not end by SIGTERM, stayed", child)
}

func TestWaitingForAProcessThatEndsSaysItsLastLines(t *testing.T) {
	p := script(t, newNS(t), "seq 100; echo cannot go on >&2; exit 3")
	never := func(context.Context) (bool, error) { return false, nil }
	err := Until(t.Context(), "a wonder", never, p)
	for _, want := range []string{"a wonder", "the script ended", "status 3", "cannot go on", "\n    82\n"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	if err != nil && strings.Contains(err.Error(), "    81\n") {
		t.Errorf("more than the last lines: %v", err)
	}
	if Lives(p) == nil {
		t.Error("it lives")
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stopping what has ended: %v", err)
	}
}

func TestWaitingEndsWithItsCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Until(ctx, "a wonder", func(context.Context) (bool, error) { cancel(); return false, nil })
	if err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("error %v", err)
	}
}

func TestAWaitThatIsTooLongSaysWhy(t *testing.T) {
	p := script(t, newNS(t), "sleep 60")
	w := Wait{For: "a wonder", Limit: 200 * time.Millisecond, Why: func() string { return "there are none" }}
	err := w.Until(t.Context(), func(context.Context) (bool, error) { return false, nil }, p)
	for _, want := range []string{"a wonder", "within 200ms", "there are none", "the script said last"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestOfALongLogTheEndIsShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(file, []byte(strings.Repeat("x", 3*lastBytes)+" the end\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Tail(file); !strings.HasSuffix(got, "x the end") || len(got) > lastBytes+4 {
		t.Errorf("%d bytes that end as %q, want no more than the last %d", len(got), got[max(0, len(got)-20):], lastBytes)
	}
}

// A log is indented by blanks, since commands replace control characters; an empty one is named so.
func TestTheEndOfALogIsPlain(t *testing.T) {
	for text, want := range map[string]string{"": "    nothing", "\n \n": "    nothing", "a\nb\n": "    a\n    b"} {
		if got := last([]byte(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestALogGoesOnWhereItWas(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for range 2 {
		p, err := Start(exec.Command("echo", "here"), Options{Name: "echo", Log: file, NS: newNS(t)})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Err(); err != nil {
			t.Error(err)
		}
	}
	if text, err := os.ReadFile(file); string(text) != "here\nhere\n" {
		t.Errorf("the log is %q (%v), want the lines of both", text, err)
	}
}

func TestAProcessThatDoesNotWantToEndIsKilled(t *testing.T) {
	for _, group := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "log")
		p, err := Start(exec.Command("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"),
			Options{Name: "the script", Log: file, NS: newNS(t), Group: group})
		if err != nil {
			t.Fatal(err)
		}
		err = Until(t.Context(), "the trap", func(context.Context) (bool, error) {
			text, err := p.Log()
			return len(text) > 0, err
		}, p)
		if err != nil {
			t.Error(err)
		}
		p.Ask()
		if err := p.EndWithin(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "did not end within 50ms") {
			t.Errorf("in a group %t: error %v, want that it did not end", group, err)
		}
		if code := p.ExitCode(); code != -1 || p.Err() == nil {
			t.Errorf("in a group %t: status %d (%v), want the end by a signal", group, code, p.Err())
		}
		if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("in a group %t: a signal to what has ended: %v", group, err)
		}
	}
}

func TestAProcessIsAskedOnceAndInItsOwnWay(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	p, err := Start(cmd, Options{Name: "cat", Log: filepath.Join(t.TempDir(), "log"), Ask: func() error {
		asked++
		return in.Close()
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.Ask()
	if err := errors.Join(p.Stop(), p.Err()); err != nil || asked != 1 {
		t.Errorf("asked %d times, it ended with %v, want once and status 0", asked, err)
	}
}

func TestWhatDoesNotStartIsAnError(t *testing.T) {
	o := Options{Name: "nothing", Log: filepath.Join(t.TempDir(), "*.log"), NS: newNS(t)}
	if _, err := Start(exec.Command("/nonexistent"), o); err == nil || !strings.Contains(err.Error(), "starting nothing") {
		t.Errorf("error %v", err)
	}
	o.Log = "/nonexistent/log"
	if _, err := Start(exec.Command("true"), o); err == nil || !strings.Contains(err.Error(), "the log of nothing") {
		t.Errorf("error %v", err)
	}
}

func TestARunThatFailsSaysWhatItSaid(t *testing.T) {
	ns := newNS(t)
	if err := Run(ns, exec.Command("sh", "-c", "echo no; echo why >&2; exit 1")); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("error %v, want what was said", err)
	}
	if err := Run(ns, exec.Command("true")); err != nil {
		t.Error(err)
	}
}

func TestTheCPUTimeOfAProcessGrowsWithItsWork(t *testing.T) {
	p := script(t, newNS(t), "while :; do :; done")
	before, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	err = Until(t.Context(), "some work", func(context.Context) (bool, error) {
		now, err := p.CPU()
		return now > before+10*time.Millisecond, err
	}, p)
	if err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := p.CPU(); err == nil {
		t.Error("a process that has ended has CPU time")
	}
}

// The test plays the agent inside the namespace.
func TestPagesAreThoseOfTheNamespace(t *testing.T) {
	ns := newNS(t)
	l, err := ns.Listen(t.Context(), "tcp", "127.0.0.1:20244")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/statusz" && r.URL.Path != "/readyz" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(`{"pods": 3}`))
	}))
	p := script(t, ns, "sleep 60")
	var status struct{ Pods int }
	if err := p.Page(t.Context(), "/statusz", &status); err != nil || status.Pods != 3 {
		t.Errorf("status %+v (%v), want 3 pods", status, err)
	}
	if err := p.Page(t.Context(), "/healthz", nil); err == nil {
		t.Error("status 503 is no error")
	}
	if err := Ready(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := script(t, newNS(t), "sleep 60").Page(t.Context(), "/statusz", nil); err == nil {
		t.Error("the page answers in another namespace")
	}
}

func serve(t *testing.T, l net.Listener, h http.Handler) {
	t.Helper()
	s := &http.Server{Handler: h}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
}

func newNS(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

func script(t *testing.T, ns *netns.NS, text string) *Process {
	t.Helper()
	p, err := Start(exec.Command("sh", "-c", text), Options{Name: "the script", Log: filepath.Join(t.TempDir(), "*.log"), NS: ns, Group: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() }) // the test says when it is an error
	return p
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/agent/flows"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// A socket that another user has is a problem, said once; it is taken, and root is answered, when that
// process has ended.
func TestTheSocketOfFlowsIsTakenWhenItIsFree(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		apart.AsUser(t, 65534, func() {
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: flows.Socket}); err != nil {
				t.Error(err)
			}
			if err := unix.Listen(fd, 16); err != nil {
				t.Error(err)
			}
		})
		_, o, _ := states()
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		s := &flows.Server{Node: "n", Denied: func() (uint64, error) { return 0, nil }}
		go func() { ended <- answerFlows(ctx, s, o, slog.New(slog.NewTextHandler(&out, nil))) }()
		has := func(want bool) {
			t.Helper()
			for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				p := o.Status().Problems
				found := len(p) == 1 && p[0].Subject == answersSubject && strings.Contains(p[0].Text, "user 65534")
				if found == want {
					return
				}
				if time.Now().After(end) {
					t.Fatalf("the problems are %+v, want one of the socket: %t", p, want)
				}
			}
		}
		has(true)
		if err := unix.Close(fd); err != nil {
			t.Fatal(err)
		}
		has(false)
		var said bytes.Buffer
		err = ListDenied(t.Context(), config.Config{ListDenied: time.Minute}, &said)
		if err != nil || !strings.Contains(said.String(), "--denied-flows-group") {
			t.Errorf("root is told %q, %v", &said, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if text := out.String(); strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "resolved") != 1 {
			t.Errorf("the log says\n%s", text)
		}
	})
}

// Standard output that nobody reads holds up nothing; what is lost is counted.
func TestRecordsForNobody(t *testing.T) {
	_, o, _ := states()
	r, w := io.Pipe() // nobody reads it yet
	defer r.Close()
	cfg := config.Config{DeniedGroup: 7, DeniedTo: []config.DeniedSink{config.DeniedStdout}}
	recorder := newRecorder(cfg, cluster.NewStore(), nil, nil, o, w, slog.New(slog.DiscardHandler))
	for range 2 * linesRoom {
		recorder.Show(denied.Record{Verdict: denied.Denied, Count: 1})
	}
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.Contains(line, `"verdict":"denied"`) {
		t.Errorf("the first line is %q, %v", line, err)
	}
}

// A counter that the kernel made again does not hide packets of before.
func TestACounterThatBeginsAgain(t *testing.T) {
	value, failed := uint64(10), error(nil)
	count := summed(func() (uint64, error) { return value, failed })
	for _, step := range []struct{ value, want uint64 }{{10, 0}, {14, 4}, {3, 7}, {3, 7}, {20, 24}} {
		value = step.value
		if got, err := count(); got != step.want || err != nil {
			t.Errorf("at %d: %d, %v; want %d", value, got, err, step.want)
		}
	}
	failed = io.EOF
	if _, err := count(); err == nil {
		t.Error("a failure is not reported")
	}
}

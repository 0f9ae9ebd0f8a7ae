// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/testkit/apart"
)

// listenAs listens on a free port of the loopback interface as a user.
func listenAs(t *testing.T, uid uintptr) string {
	t.Helper()
	return listener(t, uid).Addr().String()
}

func listener(t *testing.T, uid uintptr) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	apart.AsUser(t, uid, func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAPortOfAUserIsToldFromOneOfRoot(t *testing.T) {
	users, roots := listenAs(t, 65534), listenAs(t, 0)
	for _, tt := range []struct {
		name  string
		addrs []string
		want  bool
	}{
		{"a user's", []string{users}, true},
		{"root's", []string{roots}, false},
		{"one of each", []string{users, roots}, false},
		{"nobody's", []string{"127.0.0.1:1"}, false},
		{"none", []string{""}, false},
	} {
		if got := heldByUser(tt.addrs); got != tt.want {
			t.Errorf("%s: held by a user: %t", tt.name, got)
		}
	}
}

// tired is a listener that fails so often before it works.
type tired struct {
	net.Listener
	fails int
}

func (l *tired) Accept() (net.Conn, error) {
	if l.fails--; l.fails >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", unix.EMFILE)}
	}
	return l.Listener.Accept()
}

// An agent that had no file descriptors for a moment is asked at its lock after that. The
// log says it once.
func TestALockThatFailedAnswersAgain(t *testing.T) {
	inner, err := net.Listen("unix", t.TempDir()+"/lock")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer(ctx, &tired{inner, 3}, "127.0.0.1:1", nil, slog.New(slog.NewTextHandler(&out, nil)))
	}()
	conn, err := net.Dial("unix", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 64)
	if n, err := conn.Read(said); err != nil || string(said[:n]) != "127.0.0.1:1\n" {
		t.Errorf("the answer is %q, %v", said[:n], err)
	}
	_ = conn.Close()
	cancel()
	_ = inner.Close()
	<-done
	if strings.Count(out.String(), "level=WARN") != 1 {
		t.Errorf("the log says\n%s", &out)
	}
}

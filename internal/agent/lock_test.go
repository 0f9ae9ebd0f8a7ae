// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/lab/testkit/apart"
	"github.com/podwall/podwall/internal/observe"
)

// An agent that another user keeps from its lock takes it when that process has ended, and answers there.
func TestALockOfAnotherUserIsTakenWhenItIsFree(t *testing.T) {
	apart.Run(t, func(t *testing.T) {
		_, ready, _ := states()
		listen, leave := squat(t)
		listen()
		var out bytes.Buffer
		lock := newAgentLock("127.0.0.1:1", ready, slog.New(slog.NewTextHandler(&out, nil)))
		for range 2 {
			if err := lock.take(t.Context()); err != nil || lock.held() {
				t.Fatal(err, "taken:", lock.held())
			}
		}
		if p := ready.Status().Problems; len(p) != 1 || p[0].Subject != "agent lock" || p[0].Blocking ||
			!strings.Contains(p[0].Text, "user 65534 holds the agent's lock") {
			t.Errorf("the problems are %+v", p)
		}
		leave()
		if err := lock.Run(t.Context()); err != nil || !lock.held() {
			t.Fatal(err, "taken:", lock.held())
		}
		defer lock.release()
		if a, err := ask(t.Context()); err != nil || a.health != "127.0.0.1:1" || a.NotReady != "" {
			t.Errorf("the agent answers %+v, %v", a, err)
		}
		if p := ready.Status().Problems; len(p) != 0 {
			t.Errorf("the problems are %+v, although the lock is taken", p)
		}
		if log := out.String(); strings.Count(log, "level=ERROR") != 1 || strings.Count(log, "resolved") != 1 {
			t.Errorf("the log says\n%s", log)
		}
	})
}

// A failure to take the lock is a problem as well. The agent enforces without the lock, and tries again
// until it has it, until ctx ends, or until another agent has it. A command ends.
func TestAFailureAtTheLockIsTriedAgain(t *testing.T) {
	broken := &net.OpError{Op: "listen", Net: "unix", Err: os.NewSyscallError("socket", unix.EMFILE)}
	inner, err := net.Listen("unix", t.TempDir()+"/lock")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		last  net.Listener
		end   error // of the third try
		stop  bool  // ctx ends before it
		taken bool
		err   error
	}{
		{name: "it is taken", last: inner, taken: true},
		{name: "another agent has it", end: datapath.ErrLocked, err: ErrPlacement},
		{name: "the agent stops", stop: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			o := observe.New(observe.NewRegistry(), observe.Info{Node: "n1"})
			lock := newAgentLock("127.0.0.1:1", o, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tries := 0
			lock.bind = func(context.Context) (net.Listener, string, error) {
				switch tries++; {
				case tries < 3:
					return nil, "", broken
				case tt.stop:
					cancel()
					return nil, "", ctx.Err()
				}
				return tt.last, "", tt.end
			}
			if err := lock.take(ctx); err != nil || !errors.Is(lock.failure, unix.EMFILE) {
				t.Fatalf("%s: %v, failure %v", tt.name, err, lock.failure)
			}
			p := o.Status().Problems
			if len(p) != 1 || p[0].Blocking || !strings.Contains(p[0].Text, "cannot be taken") {
				t.Errorf("%s: the problems are %+v", tt.name, p)
			}
			if err := lock.Run(ctx); !errors.Is(err, tt.err) || lock.held() != tt.taken || tries != 3 {
				t.Errorf("%s: %v, taken %t, %d tries", tt.name, err, lock.held(), tries)
			}
			if left := len(o.Status().Problems) > 0; left == tt.taken {
				t.Errorf("%s: a problem is left: %t", tt.name, left)
			}
			lock.release()
		})
	}
}

// An agent that hangs before it serves anything is live for as long as a loop may take, and no longer.
func TestAnAgentThatHangsAtItsStartIsNotLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.NewRegistry(), observe.Info{Node: "n1"})
		time.Sleep(time.Minute)
		if c := conditionOf(o); c.NotLive != "" || c.NotReady == "" {
			t.Errorf("after a minute: %+v", c)
		}
		time.Sleep(time.Second)
		if c := conditionOf(o); !strings.Contains(c.NotLive, "has not turned for 1m1s") {
			t.Errorf("after more than a minute: %+v", c)
		}
	})
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

// An agent that had no file descriptors for a moment answers at its lock after that. The log has one
// line about it.
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

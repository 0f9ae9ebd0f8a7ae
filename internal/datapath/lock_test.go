// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab/testkit/apart"
)

// squat binds an abstract socket as a user without rights.
func squat(t *testing.T, name string) {
	t.Helper()
	apart.AsUser(t, 65534, func() {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: name}), unix.Listen(fd, 1))
			t.Cleanup(func() { _ = unix.Close(fd) })
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// A lock held by an unprivileged user blocks no agent, and is no agent.
func TestALockOfAnotherUserIsNoLock(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		squat(t, AgentLock)
		if alive, err := agentLives(t.Context()); alive || err != nil {
			t.Errorf("another user's socket is an agent: %t, %v", alive, err)
		}
		l, usurper, err := Lock(t.Context(), AgentLock)
		if l != nil || err != nil || !strings.Contains(usurper, "65534") {
			t.Errorf("lock %v, usurper %q, %v", l, usurper, err)
		}
		squat(t, skeletonLock)
		release, err := lockSkeleton(t.Context())
		if err != nil {
			t.Fatalf("a pod's start waits for another user: %v", err)
		}
		release()
	})
}

// A user's socket that does not listen has nobody to ask who it is. It is no lock either.
func TestALockThatDoesNotListenIsNoLock(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		for _, name := range []string{AgentLock, skeletonLock} {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err := errors.Join(err, unix.Bind(fd, &unix.SockaddrUnix{Name: name})); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
		}
		l, usurper, err := Lock(t.Context(), AgentLock)
		if l != nil || err != nil || !strings.Contains(usurper, "does not listen") {
			t.Errorf("lock %v, usurper %q, %v", l, usurper, err)
		}
		release, err := lockSkeleton(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
	})
}

func TestALockOfOursIsHeld(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		if alive, err := agentLives(t.Context()); alive || err != nil {
			t.Errorf("an agent without a process: %t, %v", alive, err)
		}
		l, usurper, err := Lock(t.Context(), AgentLock)
		if err != nil || usurper != "" {
			t.Fatalf("usurper %q, %v", usurper, err)
		}
		defer l.Close()
		if alive, err := agentLives(t.Context()); !alive || err != nil {
			t.Errorf("the holder is no agent: %t, %v", alive, err)
		}
		if _, _, err := Lock(t.Context(), AgentLock); !errors.Is(err, ErrLocked) {
			t.Errorf("the lock is taken twice: %v", err)
		}
	})
}

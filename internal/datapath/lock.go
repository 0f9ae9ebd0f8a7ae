// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Locks are abstract sockets: they belong to a network namespace and vanish with the process. Any process
// in the namespace may bind one, so the name alone proves nothing; the kernel reports the owner of the
// listener. A lock held by another user is ignored: it must neither keep the agent from starting nor pass
// for an agent.

// AgentLock is the lock that the agent of a network namespace holds during its lifetime.
const AgentLock = "@podwall-agent"

const skeletonLock = "@podwall-skeleton"

// ErrLocked means that another process of ours holds the lock.
var ErrLocked = errors.New("the lock is held")

// askHolder is how long to wait for a holder's answer.
const askHolder = time.Second

// Lock takes a lock. If a process of another user holds it, usurper names that process and there is no
// error; the listener is then nil, and no process of ours holds the lock.
func Lock(ctx context.Context, name string) (l net.Listener, usurper string, err error) {
	for end := time.Now().Add(askHolder); ; {
		var config net.ListenConfig
		l, err = config.Listen(ctx, "unix", name)
		if !errors.Is(err, unix.EADDRINUSE) {
			return l, "", err
		}
		ours, who, err := holder(ctx, name)
		switch {
		case err != nil:
			return nil, "", err
		case ours:
			return nil, "", fmt.Errorf("%w by %s", ErrLocked, who)
		case who != "":
			return nil, who, nil
		case time.Now().After(end): // ours listen at once
			return nil, "a process that has it and does not listen", nil
		}
		select {
		case <-ctx.Done():
			return nil, "", fmt.Errorf("taking the lock %s: %w", name, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// holder describes the process that listens on an abstract socket, and reports whether it is ours: of root
// or of the same user. who is empty if no process listens.
func holder(ctx context.Context, name string) (ours bool, who string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askHolder)
	defer cancel()
	for {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", name)
		switch {
		case err == nil:
			defer func() { _ = conn.Close() }() // nothing is said
			return Peer(conn)
		case errors.Is(err, unix.ECONNREFUSED):
			return false, "", nil
		case !errors.Is(err, unix.EAGAIN): // its backlog is full of other callers
			return false, "", fmt.Errorf("finding the holder of %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return false, "a process that accepts no connections", nil // an agent accepts them
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Peer returns who is at the other end of a connection of a Unix socket, and whether
// that is a process of ours: of root, or of the same user.
func Peer(conn net.Conn) (ours bool, who string, err error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false, "", err
	}
	var cred *unix.Ucred
	failed := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(failed, err); err != nil {
		return false, "", fmt.Errorf("reading the holder of a lock: %w", err)
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid(), fmt.Sprintf("process %d of user %d", cred.Pid, cred.Uid), nil
}

// agentLives reports whether an agent holds its lock in this network namespace. It returns an error if that
// cannot be determined, for example when ctx has ended.
func agentLives(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("checking whether an agent runs: %w", err)
	}
	ours, _, err := holder(ctx, AgentLock)
	return ours, err
}

// lockSkeleton waits for its turn, because pods start concurrently. It does not wait for another user's
// socket; release then does nothing.
func lockSkeleton(ctx context.Context) (release func(), err error) {
	for {
		alone, usurper, err := Lock(ctx, skeletonLock)
		switch {
		case usurper != "":
			return func() {}, nil
		case err == nil:
			return func() { _ = alone.Close() }, nil // the lock vanishes with the process
		case !errors.Is(err, ErrLocked):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another pod's start: %w", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

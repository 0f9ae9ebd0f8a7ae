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

// Locks are abstract sockets: they belong to a network namespace and go away with
// the process. Everybody in the namespace may bind one, so the name alone says
// nothing; the kernel says who listens. A lock that another user holds is no lock:
// it must not keep the agent from starting, nor pass for one.

// AgentLock is the lock that the agent of a network namespace holds for as long as
// it lives.
const AgentLock = "@podwall-agent"

const skeletonLock = "@podwall-skeleton"

// ErrLocked says that another process of ours holds the lock.
var ErrLocked = errors.New("the lock is held")

// askHolder is for how long a holder may leave us waiting.
const askHolder = time.Second

// Lock takes a lock. Without an error usurper names a process of another user that
// keeps us from it; then the listener is nil, and nobody else of ours holds the lock
// under that name.
func Lock(ctx context.Context, name string) (l net.Listener, usurper string, err error) {
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
	}
	return nil, who, nil
}

// holder returns who listens on an abstract socket, and whether that is a process
// of ours: of root, or of the same user. who is empty if nobody listens.
func holder(ctx context.Context, name string) (ours bool, who string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askHolder)
	defer cancel()
	for {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", name)
		switch {
		case err == nil:
			return credentials(conn)
		case errors.Is(err, unix.ECONNREFUSED):
			return false, "", nil
		case !errors.Is(err, unix.EAGAIN): // others ask, too, and it has not taken their calls yet
			return false, "", fmt.Errorf("asking who holds %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return false, "a process that takes no calls", nil // the agent takes them
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// credentials reads who listened, and hangs up.
func credentials(conn net.Conn) (ours bool, who string, err error) {
	defer func() { _ = conn.Close() }() // nothing is said
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false, "", err
	}
	var cred *unix.Ucred
	failed := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(failed, err); err != nil {
		return false, "", fmt.Errorf("reading who holds a lock: %w", err)
	}
	return cred.Uid == 0 || int(cred.Uid) == os.Geteuid(), fmt.Sprintf("process %d of user %d", cred.Pid, cred.Uid), nil
}

// agentLives reports whether an agent holds its lock in this network namespace. It
// returns an error if that cannot be known, as when ctx has ended.
func agentLives(ctx context.Context) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("asking whether the agent lives: %w", err)
	}
	ours, _, err := holder(ctx, AgentLock)
	return ours, err
}

// lockSkeleton waits for its turn: pods start side by side. Somebody else's socket
// is not waited for; release is then nothing.
func lockSkeleton(ctx context.Context) (release func(), err error) {
	for {
		alone, usurper, err := Lock(ctx, skeletonLock)
		switch {
		case usurper != "":
			return func() {}, nil
		case err == nil:
			return func() { _ = alone.Close() }, nil // it goes away with the process
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

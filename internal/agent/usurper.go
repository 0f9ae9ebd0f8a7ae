// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/observe"
)

// A local user without rights can bind the agent's lock and its ports while no
// agent runs. That must not keep the agent from enforcing: only processes of root
// count as another agent, or as a program that the operator put on the port.

// lock makes sure that there is one agent in a network namespace. Whoever connects
// to the lock is told where the agent answers health, and who is root how it is; state
// may be nil. usurper names a process of
// another user that keeps us from the lock; release gives it back, and waits until
// nobody is answered any more.
func lock(ctx context.Context, health string, state *self, log *slog.Logger) (release func(), usurper string, err error) {
	l, usurper, err := datapath.Lock(ctx, datapath.AgentLock)
	switch {
	case errors.Is(err, datapath.ErrLocked):
		return nil, "", fmt.Errorf("%w: another podwall-agent runs in this network namespace (%v)", ErrPlacement, err)
	case err != nil:
		return nil, "", fmt.Errorf("taking the lock of the agent: %w", err)
	case usurper != "":
		return func() {}, usurper, nil
	}
	done := make(chan struct{})
	answering, stop := context.WithCancel(context.WithoutCancel(ctx)) // also while the agent ends
	go func() {
		defer close(done)
		answer(answering, l, health, state, log)
	}()
	return func() {
		stop()
		_ = l.Close() // it goes away with the process
		<-done
	}, "", nil
}

// answerAgain is the pause after a failure at the lock.
const answerAgain = 100 * time.Millisecond

// answer accepts and closes connections of processes that probe the lock to learn whether
// an agent runs (the start gate does, for each pod), and tells them the health address and,
// if they are root's, the agent's condition, until the lock is released. A failure to
// accept, for want of file descriptors for example, is retried: a client that gets no
// answer takes the agent for dead.
func answer(ctx context.Context, l net.Listener, health string, state *self, log *slog.Logger) {
	said := false
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if !said {
				log.Warn("accepting at the agent lock failed, retrying", "err", err)
			}
			said = true
			pause(ctx, answerAgain)
			continue
		}
		text := health + "\n"
		if ours, _, err := datapath.Peer(conn); err == nil && ours && state != nil {
			how, _ := json.Marshal(state.condition()) // two texts
			text += string(how) + "\n"
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // who does not read keeps nobody waiting
		_, _ = io.WriteString(conn, text)                      // most have hung up
		_ = conn.Close()
	}
}

func lockProblem(usurper string) observe.Problem {
	return observe.Problem{Subject: "agent lock", Text: usurper + " holds the agent's lock (abstract socket " + datapath.AgentLock + "): a second agent would not be noticed",
		Cure: "end that process; no program of a user may run in the node's network namespace"}
}

// heldByUser reports whether a process that is not root's listens on the port of one
// of the addresses, and none of root's does.
func heldByUser(addrs []string) (users bool) {
	wanted := map[uint64]bool{}
	for _, a := range addrs {
		if _, port, err := net.SplitHostPort(a); err == nil {
			n, _ := strconv.ParseUint(port, 10, 16)
			wanted[n] = true
		}
	}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		for port, uids := range listeners(file) {
			for _, uid := range uids {
				if wanted[port] && uid == 0 {
					return false
				}
				users = users || wanted[port]
			}
		}
	}
	return users
}

// listeners reads which users listen on which TCP ports of this network namespace.
func listeners(file string) map[uint64][]uint64 {
	const local, state, user, listening = 1, 3, 7, "0A"
	found := map[uint64][]uint64{}
	f, err := os.Open(file)
	if err != nil {
		return found
	}
	defer func() { _ = f.Close() }() // it was only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) <= user || fields[state] != listening {
			continue
		}
		_, hex, _ := strings.Cut(fields[local], ":")
		port, err := strconv.ParseUint(hex, 16, 16)
		uid, bad := strconv.ParseUint(fields[user], 10, 32)
		if err == nil && bad == nil {
			found[port] = append(found[port], uid)
		}
	}
	return found
}

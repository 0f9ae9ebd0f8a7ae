// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/observe"
)

// tryLock is the pause before the lock is tried again.
const tryLock = 2 * time.Second

// lockSubject is the subject of the problem that the agent runs without its lock.
const lockSubject = "agent lock"

// agentLock makes sure that there is one agent in a network namespace. Neither a process of
// another user that holds the lock nor a failure to take it keeps the agent from enforcing: it
// goes on without the lock and tries again.
type agentLock struct {
	health   string            // the address of the health page, for clients of the lock
	observer *observe.Observer // the agent's condition, for clients of root; nil: a command without one
	log      *slog.Logger
	bind     func(context.Context) (l net.Listener, usurper string, err error)

	taken   atomic.Bool
	failure error  // why the last try failed; nil if another user holds the lock
	logged  bool   // the problem is in the log
	stop    func() // ends the answers and waits for that; nil while the lock is not taken
}

func newAgentLock(health string, observer *observe.Observer, log *slog.Logger) *agentLock {
	return &agentLock{health: health, observer: observer, log: log,
		bind: func(ctx context.Context) (net.Listener, string, error) { return datapath.Lock(ctx, datapath.AgentLock) }}
}

// take tries once. It is an error that another agent holds the lock, and that ctx has ended. Every
// other failure is a problem.
func (a *agentLock) take(ctx context.Context) error {
	l, usurper, err := a.bind(ctx)
	switch {
	case errors.Is(err, datapath.ErrLocked):
		return fmt.Errorf("%w: another podwall-agent runs in this network namespace (%w)", ErrPlacement, err)
	case ctx.Err() != nil && err != nil:
		return err
	case err != nil:
		a.failure = fmt.Errorf("taking the lock of the agent: %w", err)
		a.report(failedLock(err))
	case usurper != "":
		a.failure = nil
		a.report(usurpedLock(usurper))
	default:
		a.failure = nil
		a.serve(ctx, l)
		a.resolve()
	}
	return nil
}

// serve answers the clients of the lock until release is called.
func (a *agentLock) serve(ctx context.Context, l net.Listener) {
	done := make(chan struct{})
	answering, cancel := context.WithCancel(context.WithoutCancel(ctx)) // also while the agent ends
	go func() {
		defer close(done)
		answer(answering, l, a.health, a.observer, a.log)
	}()
	a.taken.Store(true)
	a.stop = func() {
		cancel()
		_ = l.Close() // the process ends
		<-done
	}
}

// held reports whether this process has the lock.
func (a *agentLock) held() bool { return a.taken.Load() }

// release gives the lock back. It must not be called during Run.
func (a *agentLock) release() {
	if a.stop != nil {
		a.stop()
	}
}

// Run tries again until the lock is taken or ctx ends. It returns an error if another agent has taken the
// lock meanwhile.
func (a *agentLock) Run(ctx context.Context) error {
	for !a.taken.Load() {
		pause(ctx, tryLock)
		if ctx.Err() != nil {
			return nil
		}
		if err := a.take(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (a *agentLock) report(p observe.Problem) {
	if !a.logged {
		p.Log(a.log)
	}
	a.logged = true
	if a.observer != nil {
		a.observer.SetProblem(p)
	}
}

func (a *agentLock) resolve() {
	if !a.logged {
		return
	}
	a.logged = false
	observe.LogResolved(a.log, lockSubject)
	if a.observer != nil {
		a.observer.ClearProblem(lockSubject)
	}
}

func usurpedLock(usurper string) observe.Problem {
	return observe.Problem{Subject: lockSubject,
		Text: usurper + " holds the agent's lock (abstract socket " + datapath.AgentLock +
			"): a second agent would not be noticed",
		Cure: "end that process; no program of a user may run in the node's network namespace; " +
			"the lock is tried again until then"}
}

func failedLock(err error) observe.Problem {
	return observe.Problem{Subject: lockSubject,
		Text: "the agent's lock (abstract socket " + datapath.AgentLock + ") cannot be taken, so a second agent " +
			"would not be noticed: " + err.Error(),
		Cure: "let the agent bind abstract unix sockets and open files; the lock is tried again until then"}
}

// answerAgain is the pause after a failure at the lock.
const answerAgain = 100 * time.Millisecond

// answer accepts and closes connections of processes that probe the lock to learn whether
// an agent runs (the start gate does, for each pod). It writes the health address to them and,
// if they are root's, the agent's condition, until the lock is released. A failure to
// accept, for want of file descriptors for example, is retried: a client that gets no
// answer takes the agent for dead.
func answer(ctx context.Context, l net.Listener, health string, o *observe.Observer, log *slog.Logger) {
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
		if ours, _, err := datapath.Peer(conn); err == nil && ours && o != nil {
			how, _ := json.Marshal(conditionOf(o)) // two texts
			text += string(how) + "\n"
		}
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // a client that does not read delays no other
		_, _ = io.WriteString(conn, text)                      // most have closed the connection
		_ = conn.Close()
	}
}

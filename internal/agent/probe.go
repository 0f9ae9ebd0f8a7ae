// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/observe"
)

// The agent reports its condition at its lock, too: no other process can have that while the
// agent lives, as it can have the port for health.

// condition is the state of an agent: why it is not live and not ready, both empty if it is. An
// agent that hangs is not live, also before it serves anything: the observer exists before the
// lock is taken, and its time runs from then on.
type condition struct {
	NotLive  string `json:"notLive"`
	NotReady string `json:"notReady"`
}

func conditionOf(o *observe.Observer) condition {
	return condition{NotLive: o.Stalled(), NotReady: strings.Join(o.Status().NotReady, "; ")}
}

// answered is an agent's answer at its lock.
type answered struct {
	health string // where it serves health; empty if nowhere
	*condition
}

// errNotOurs means that another user holds the agent's lock.
var errNotOurs = errors.New("another user's process holds the agent's lock")

var errNotRoot = errors.New("the agent reports its state to root only: run it as root")

// askAgent is how long the agent of this node may take to report its state.
const askAgent = 4 * time.Second

// ask reads the agent's condition at its lock.
func ask(ctx context.Context) (answered, error) {
	conn, err := dialLock(ctx)
	switch {
	case errors.Is(err, unix.ECONNREFUSED) && bound(datapath.AgentLock): // an agent listens
		return answered{}, fmt.Errorf("%w and does not listen", errNotOurs)
	case errors.Is(err, unix.EAGAIN): // an agent accepts
		return answered{}, fmt.Errorf("%w and does not accept connections", errNotOurs)
	case errors.Is(err, unix.ECONNREFUSED):
		return answered{}, errors.New("no podwall-agent runs in this network namespace")
	case err != nil:
		return answered{}, err
	}
	defer func() { _ = conn.Close() }() // nothing is written
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end) // a unix socket has them
	}
	if ours, who, err := datapath.Peer(conn); err != nil || !ours {
		return answered{}, errors.Join(fmt.Errorf("%w: %s", errNotOurs, who), err)
	}
	const longest = 1 << 20
	said, err := io.ReadAll(io.LimitReader(conn, longest))
	if err != nil {
		return answered{}, err
	}
	first, second, _ := bytes.Cut(said, []byte("\n"))
	a := answered{health: string(first)}
	if json.Unmarshal(second, &a.condition) != nil || a.condition == nil {
		if os.Geteuid() != 0 {
			return answered{}, errNotRoot
		}
		return answered{}, errors.New("it does not report its state: it is a cleanup, or of an older release; " +
			"update it first")
	}
	return a, nil
}

// dialLock connects to the lock. While its queue is full it tries again.
func dialLock(ctx context.Context) (net.Conn, error) {
	for end := time.Now().Add(askAgent / 2); ; { // the rest is for the page
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", datapath.AgentLock)
		if !errors.Is(err, unix.EAGAIN) || ctx.Err() != nil || time.Now().After(end) {
			return conn, err
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// bound reports whether a process of this network namespace has the abstract socket.
func bound(name string) bool {
	sockets, err := os.ReadFile("/proc/self/net/unix")
	return err == nil && slices.ContainsFunc(strings.Split(string(sockets), "\n"),
		func(line string) bool { return strings.HasSuffix(line, " "+name) })
}

// Probe reads the condition of this node's agent, for exec probes of the kubelet and for
// people. ok is true if the agent is live, or ready, by cfg.Probe. It also counts as live while
// another user's processes hold both the lock and the port: no user without rights may have it
// restarted. Reasons may have several lines.
func Probe(ctx context.Context, cfg config.Config) (text string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askAgent)
	defer cancel()
	a, err := ask(ctx)
	why := ""
	switch {
	case errors.Is(err, errNotOurs): // the agent runs without its lock
		if why, err = probePage(ctx, cfg, err); err != nil && cfg.Probe == config.ProbeLive {
			return "live, as far as can be known: " + err.Error(), true
		}
		if err != nil {
			why = err.Error()
		}
	case err != nil:
		why = err.Error()
	case cfg.Probe == config.ProbeLive:
		why = a.NotLive
	default:
		why = a.NotReady
	}
	if why != "" {
		return "not " + string(cfg.Probe) + ": " + why, false
	}
	return string(cfg.Probe), true
}

// probePage reads the health page instead, at the address that the command line gives. The
// error is why no answer can be trusted.
func probePage(ctx context.Context, cfg config.Config, held error) (why string, err error) {
	at, path := cfg.HealthListen(), "/readyz"
	if cfg.Probe == config.ProbeLive {
		path = "/healthz"
	}
	switch {
	case at == "":
		return "", fmt.Errorf("%w, and no --health-port is given", held)
	case heldByUser([]string{at}):
		return "", fmt.Errorf("%w, and one the port for health", held)
	}
	if why, err = page(ctx, at, path); err != nil {
		return "", fmt.Errorf("%w, and %w", held, err)
	}
	return why, nil
}

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
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/config"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/observe"
)

// An agent says how it is at its lock, too: no other process can have that while the
// agent lives, as it can have the port for health.

// condition is how an agent is: why it is not live and not ready, both empty if it is.
type condition struct {
	NotLive  string `json:"notLive"`
	NotReady string `json:"notReady"`
}

// self is what the agent says of itself. The zero value is an agent that starts.
type self struct {
	observer atomic.Pointer[observe.Observer]
}

func (s *self) condition() condition {
	o := s.observer.Load()
	if o == nil {
		return condition{NotReady: "the agent starts"}
	}
	return condition{NotLive: o.Stalled(), NotReady: strings.Join(o.Status().NotReady, "; ")}
}

// answered is what an agent says at its lock.
type answered struct {
	health string // where it serves health; empty if nowhere
	*condition
}

// errNotOurs says that another user holds the agent's lock.
var errNotOurs = errors.New("another user's process holds the agent's lock")

// askAgent is how long the agent of this node may take to say how it is.
const askAgent = 4 * time.Second

// ask asks whoever holds the agent's lock how it is.
func ask(ctx context.Context) (answered, error) {
	conn, err := dialLock(ctx)
	switch {
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
		return answered{}, errors.New("it does not say how it is: it is a cleanup, or of an older release; update it first")
	}
	return a, nil
}

// dialLock connects to the lock. While its queue is full it tries again.
func dialLock(ctx context.Context) (net.Conn, error) {
	for {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", datapath.AgentLock)
		if !errors.Is(err, unix.EAGAIN) || ctx.Err() != nil {
			return conn, err
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// Probe asks the agent of this node how it is, for exec probes of the kubelet and for
// people. text is one line; ok is true if the agent is live, or ready, as asked.
func Probe(ctx context.Context, cfg config.Config) (text string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askAgent)
	defer cancel()
	a, err := ask(ctx)
	why := ""
	switch {
	case errors.Is(err, errNotOurs): // the agent runs without its lock
		why = probePage(ctx, cfg)
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

// probePage asks the page that says the same, where the command line says that it is.
func probePage(ctx context.Context, cfg config.Config) (why string) {
	at, path := cfg.HealthListen(), "/readyz"
	if cfg.Probe == config.ProbeLive {
		path = "/healthz"
	}
	switch {
	case at == "":
		return errNotOurs.Error() + ", and no --health-port is given"
	case heldByUser([]string{at}):
		return errNotOurs.Error() + ", and one the port for health"
	}
	why, err := page(ctx, at, path)
	if err != nil {
		return errNotOurs.Error() + ", and " + err.Error()
	}
	return why
}

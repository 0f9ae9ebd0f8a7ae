// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// Client sends requests to the gate of an agent.
type Client struct{ Socket string }

// ErrNoAnswer says that no agent answered in time.
var ErrNoAnswer = errors.New("no podwall-agent answers")

// again is the wait before the next try while no agent answers: it may be restarting.
const again = 50 * time.Millisecond

// margin is how much earlier than the caller the agent gives up, so that its
// answer, which says why, still arrives.
const margin = 100 * time.Millisecond

// Add announces a pod and returns the answer. While there is no agent it tries
// again until ctx ends; then the error wraps ErrNoAnswer. ctx should have a
// deadline.
func (c Client) Add(ctx context.Context, p Pod) (Reply, error) {
	for {
		r, err := c.ask(ctx, Request{Op: Add, Pod: p, WaitMillis: wait(ctx).Milliseconds()})
		if err == nil || errors.Is(err, errRefused) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("%w: %w", ErrNoAnswer, err)
		case <-time.After(again):
		}
	}
}

func wait(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return MaxWait
	}
	left := time.Until(deadline)
	return max(0, min(MaxWait, left-min(margin, left/4)))
}

// Announce announces a pod and does not wait, neither for the kernel nor for an
// agent.
func (c Client) Announce(ctx context.Context, p Pod) error {
	_, err := c.once(ctx, Request{Op: Add, Pod: p})
	return err
}

// Check returns the state of a sandbox. It does not wait for an agent.
func (c Client) Check(ctx context.Context, sandbox string) (Reply, error) {
	return c.once(ctx, Request{Op: Check, Pod: Pod{Sandbox: sandbox}})
}

// Del withdraws a sandbox. It does not wait for an agent.
func (c Client) Del(ctx context.Context, sandbox string) error {
	_, err := c.once(ctx, Request{Op: Del, Pod: Pod{Sandbox: sandbox}})
	return err
}

// List returns all announced pods. It does not wait for an agent.
func (c Client) List(ctx context.Context) ([]Known, error) {
	r, err := c.once(ctx, Request{Op: List})
	return r.Pods, err
}

// Off says that the gate was uninstalled. It does not wait for an agent.
func (c Client) Off(ctx context.Context) error {
	_, err := c.once(ctx, Request{Op: Off})
	return err
}

func (c Client) once(ctx context.Context, r Request) (Reply, error) {
	reply, err := c.ask(ctx, r)
	if err != nil && !errors.Is(err, errRefused) {
		err = fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return reply, err
}

// errRefused says that the agent did not take the request: asking again does
// not help.
var errRefused = errors.New("the agent refused the request")

func (c Client) ask(ctx context.Context, r Request) (Reply, error) {
	r.Version = Version
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return Reply{}, fmt.Errorf("connecting to the agent: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends what waits
	defer stop()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return Reply{}, fmt.Errorf("asking the agent: %w", err)
	}
	var reply Reply
	if err := readMessage(conn, MaxReply, &reply); err != nil {
		return Reply{}, fmt.Errorf("reading the agent's answer: %w", err)
	}
	switch {
	case reply.Error != "":
		return Reply{}, fmt.Errorf("%w: %s", errRefused, reply.Error)
	case reply.Version != Version:
		return Reply{}, fmt.Errorf("%w: it speaks version %d of the protocol, not %d; "+
			"install podwall-gate and podwall-agent of one release", errRefused, reply.Version, Version)
	}
	return reply, nil
}

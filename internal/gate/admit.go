// SPDX-License-Identifier: Apache-2.0

//go:build linux

package gate

import (
	"context"
	"net/netip"
	"time"
)

// Admission decides whether a pod may start. The fronts of the gate differ only in
// how they say so.
type Admission struct {
	Client Client
	// Close makes sure that nothing reaches a pod behind the named interfaces, with these
	// addresses, that no rule allows, whether an agent lives or not. May be nil: then
	// every pod counts as closed.
	Close func(ctx context.Context, links []string, addrs []netip.Addr) error
	// CloseWait bounds Close.
	CloseWait time.Duration
	// Wait is how long a start may take, Close included; the agent has half of it at
	// least, however long a large connection table took.
	Wait time.Duration
	// Refuse says that a pod does not start before it is enforced.
	Refuse bool
}

// Verdict says whether a pod may start.
type Verdict uint8

// The verdicts. The zero value refuses.
const (
	// WouldStartOpen refuses: the pod is not enforced, and could not be closed.
	WouldStartOpen Verdict = iota
	// TooLate refuses: the pod is closed and not enforced, and the operator wants it
	// to wait.
	TooLate
	// StartClosed lets the pod start closed: the agent opens it later.
	StartClosed
	// StartEnforced lets the pod start: the kernel has its verdicts.
	StartEnforced
)

// Decision is a verdict and what led to it.
type Decision struct {
	Verdict Verdict
	Reply   Reply // of the agent
	Err     error // why there is no reply
	// NotClosed is why the pod could not be closed. Of an enforced pod it is a note:
	// the agent has done the same itself, or has a problem that it reports.
	NotClosed error
}

// Why says why the pod is not enforced, for people.
func (d Decision) Why() string {
	if d.Err != nil {
		return d.Err.Error()
	}
	return string(d.Reply.State) + ": " + d.Reply.Text
}

// Admit closes the pod, announces it, and waits until the kernel has its verdicts
// or the time is over.
func (a Admission) Admit(pod Pod) Decision {
	begin := time.Now()
	d := Decision{NotClosed: a.CloseNow(pod)}
	ctx, cancel := context.WithTimeout(context.Background(), max(a.Wait-time.Since(begin), a.Wait/2))
	defer cancel()
	d.Reply, d.Err = a.Client.Add(ctx, pod)
	switch {
	case d.Err == nil && d.Reply.State == Enforced:
		d.Verdict = StartEnforced
	case d.NotClosed != nil:
		d.Verdict = WouldStartOpen
	case a.Refuse:
		d.Verdict = TooLate
	default:
		d.Verdict = StartClosed
	}
	return d
}

// CloseNow makes sure that nothing reaches the pod that no rule allows.
func (a Admission) CloseNow(pod Pod) error {
	if a.Close == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.CloseWait)
	defer cancel()
	return a.Close(ctx, pod.Links, pod.IPs)
}

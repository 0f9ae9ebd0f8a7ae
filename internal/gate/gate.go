// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package gate is how the container runtime's side tells the agent about a pod
// before its containers start, and how the agent answers when the kernel has
// the pod's verdicts: a Unix socket, one request and one reply in JSON for each
// connection, read and written by root only.
//
// It owns the protocol, the server that the agent runs, the client of the CNI plugin
// and the NRI plugin, and the decision whether a pod may start (Admission). It knows
// nothing of policies, of the kernel or of the cluster: the Keeper does.
package gate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// DefaultSocket is where the agent listens.
const DefaultSocket = "/run/podwall/gate.sock"

// Version is the version of the protocol. Both sides refuse another one: a
// field that is not understood could be the one that closes.
const Version = 1

// The limits of the protocol.
const (
	// MaxMessage is the largest request that is read, in bytes. A pod with
	// hundreds of addresses fits many times.
	MaxMessage = 64 << 10
	// MaxReply is the largest reply that is read: the list of a full node.
	MaxReply = 4 << 20
	// MaxWait is the longest time that a request may ask to wait.
	MaxWait = time.Minute
	// ioTime is the time that a peer has to send or take a message.
	ioTime = 2 * time.Second
)

// Op is what is asked.
type Op string

// The operations. Add announces a pod and waits for the kernel, Check asks for
// the state without waiting, Del withdraws, List names all announced pods. Off says
// that the gate was uninstalled, so that pods which are not announced are no problem.
const (
	Add   Op = "add"
	Check Op = "check"
	Del   Op = "del"
	List  Op = "list"
	Off   Op = "off"
)

// Pod is a pod as the runtime sees it.
type Pod struct {
	// Sandbox is the runtime's ID of the sandbox. It alone identifies what was
	// announced: addresses and names are used again.
	Sandbox   string `json:"sandbox"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
	// Network is the name of the CNI network that the addresses are from; GC of
	// one network leaves those of others alone.
	Network string `json:"network,omitempty"`
	// Netns is the path of the sandbox's network namespace, Links are the
	// interfaces on the node's side. Both are for people.
	Netns string       `json:"netns,omitempty"`
	Links []string     `json:"links,omitempty"`
	IPs   []netip.Addr `json:"ips,omitempty"`
}

// State says what the kernel does with a pod's packets.
type State string

// The states. Enforced: the kernel has the pod's verdicts. Isolated: it is
// known, but the kernel does not have them yet; the pod is closed. Unknown: the
// agent does not know the pod; it is closed as well.
const (
	Enforced State = "enforced"
	Isolated State = "isolated"
	Unknown  State = "unknown pod"
)

// Known is an announced pod and its state.
type Known struct {
	Pod   Pod    `json:"pod"`
	State State  `json:"state"`
	Text  string `json:"text,omitempty"`
}

// Request is what a client sends.
type Request struct {
	Version int `json:"version"`
	Op      Op  `json:"op"`
	// WaitMillis is how long the answer to Add may take, in milliseconds.
	WaitMillis int64 `json:"waitMillis,omitempty"`
	Pod        Pod   `json:"pod"`
}

// Reply is the answer.
type Reply struct {
	Version int   `json:"version"`
	State   State `json:"state,omitempty"`
	// Text says why, for people.
	Text string `json:"text,omitempty"`
	// TookMicros is the time from the request to the answer, in microseconds.
	TookMicros int64   `json:"tookMicros"`
	Pods       []Known `json:"pods,omitempty"`
	// Error is set when the request was refused; nothing else is set then.
	Error string `json:"error,omitempty"`
}

// Keeper is the agent as the server sees it. Its methods may be called from
// several goroutines.
type Keeper interface {
	// Announce returns nil when the kernel has the pod's verdicts, and an error
	// when it has not before ctx ends: one that wraps ErrUnknown if the pod is not
	// known. What was announced stays announced either way.
	Announce(ctx context.Context, p Pod) error
	// Withdraw forgets a sandbox; an unknown one is no error.
	Withdraw(sandbox string)
	// Announced returns all announced pods, sorted by sandbox.
	Announced() []Known
	// Off notes that the gate was uninstalled; the next announcement ends that.
	Off()
}

// ErrUnknown says that the agent does not know the pod.
var ErrUnknown = errors.New("the agent does not know this pod")

// limits of texts: longer ones are no names of Kubernetes or of a runtime.
const (
	maxText  = 512
	maxItems = 64
)

// check says what is wrong with a request, naming the field.
func (r Request) check() error {
	switch {
	case r.Version != Version:
		return fmt.Errorf("version: %d is not supported, this side speaks %d; "+
			"install podwall-gate and podwall-agent of one release", r.Version, Version)
	case r.WaitMillis < 0 || r.WaitMillis > MaxWait.Milliseconds():
		return fmt.Errorf("waitMillis: %d is not between 0 and %d", r.WaitMillis, MaxWait.Milliseconds())
	}
	switch r.Op {
	case List, Off:
		return nil
	case Del, Check:
		return checkText("pod.sandbox", r.Pod.Sandbox)
	case Add:
		return r.Pod.check()
	}
	return fmt.Errorf("op: %q is none of add, check, del, list, off", r.Op)
}

func (p Pod) check() error {
	err := errors.Join(checkText("pod.sandbox", p.Sandbox), checkText("pod.namespace", p.Namespace),
		checkText("pod.name", p.Name))
	for field, text := range map[string]string{"pod.uid": p.UID, "pod.network": p.Network, "pod.netns": p.Netns,
		"pod.links": strings.Join(p.Links, "")} {
		if len(text) > 8*maxText {
			err = errors.Join(err, fmt.Errorf("%s: is too long", field))
		}
	}
	if len(p.IPs) == 0 || len(p.IPs) > maxItems {
		err = errors.Join(err, fmt.Errorf("pod.ips: %d addresses, want 1 to %d", len(p.IPs), maxItems))
	}
	for _, ip := range p.IPs {
		if !ip.IsValid() || ip.Zone() != "" || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() {
			err = errors.Join(err, fmt.Errorf("pod.ips: %q is no address of a pod", ip))
		}
	}
	return err
}

func checkText(field, text string) error {
	switch {
	case text == "":
		return fmt.Errorf("%s: is missing", field)
	case len(text) > maxText:
		return fmt.Errorf("%s: is longer than %d bytes", field, maxText)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/wake"
)

// Gate is the agent's side of the gate: it puts what the runtime announces into
// the store, and knows from the loop when the kernel has it.
type Gate struct {
	node  string
	store *cluster.Store
	done  *progress
	// hurry holds at most one wish that the loop does not wait for more changes.
	hurry wake.Signal

	mu    sync.Mutex          // guards everything below
	pods  map[string]gate.Pod // as announced, by sandbox
	heard attendance
}

var _ gate.Keeper = (*Gate)(nil)

// NewGate returns the gate of a node's agent. The loop that makes the answers
// true gets it as Loop.Gate.
func NewGate(node string, store *cluster.Store) *Gate {
	return &Gate{node: node, store: store, done: newProgress(), hurry: wake.New(), pods: map[string]gate.Pod{}}
}

// errWithdrawn ends the wait for a sandbox that went meanwhile.
var errWithdrawn = errors.New("the sandbox was withdrawn")

// Announce puts a pod's sandbox into the store and returns nil when a pass whose
// model had it was committed by the kernel. It waits for the pod's object, which
// the watch may bring later than the runtime starts the pod.
func (d *Gate) Announce(ctx context.Context, p gate.Pod) error {
	d.put(p)
	for late := false; ; late = ctx.Err() != nil {
		next := d.done.later() // before asking, so that no pass is missed
		status := d.store.Sandbox(p.Sandbox)
		switch {
		case status.Phase == cluster.Unannounced:
			return errWithdrawn
		case status.Phase == cluster.Superseded:
			return d.why(p, status)
		case status.Phase == cluster.Known && d.done.has(podKey(p), status.Revision):
			return nil
		case late:
			return d.why(p, status)
		}
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}

func (d *Gate) put(p gate.Pod) {
	d.mu.Lock()
	d.pods[p.Sandbox] = p
	d.heard.used, d.heard.count = true, 0
	d.mu.Unlock()
	s := cluster.Sandbox{ID: p.Sandbox, Pod: podKey(p), UID: p.UID, Node: d.node, IPs: unmapped(p.IPs), Links: p.Links}
	d.store.Update(func(tx *cluster.Tx) { tx.Announce(s) })
	d.forget()
	d.hurry.Set()
}

// forget lets go of what the store has forgotten.
func (d *Gate) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.pods) <= cluster.MaxAnnounced {
		return
	}
	for id := range d.pods {
		if d.store.Sandbox(id).Phase == cluster.Unannounced {
			delete(d.pods, id)
		}
	}
}

func podKey(p gate.Pod) cluster.Key { return cluster.Key{Namespace: p.Namespace, Name: p.Name} }

func unmapped(ips []netip.Addr) []netip.Addr {
	var list []netip.Addr
	for _, ip := range ips {
		if ip = ip.Unmap(); !slices.Contains(list, ip) {
			list = append(list, ip)
		}
	}
	return list
}

// Withdraw takes a sandbox out of the store.
func (d *Gate) Withdraw(sandbox string) {
	d.mu.Lock()
	if p, ok := d.pods[sandbox]; ok {
		d.heard.withdrawn(podKey(p), p.UID)
	}
	delete(d.pods, sandbox)
	d.mu.Unlock()
	d.store.Update(func(tx *cluster.Tx) { tx.Withdraw(sandbox) })
	d.done.wake()
}

// Announced returns the announced pods and what the kernel does with them.
func (d *Gate) Announced() []gate.Known {
	var list []gate.Known
	for _, s := range d.store.Sandboxes() {
		d.mu.Lock()
		p, ok := d.pods[s.ID]
		d.mu.Unlock()
		if !ok {
			continue // it is being withdrawn
		}
		k := gate.Known{Pod: p, State: gate.Enforced}
		status := d.store.Sandbox(s.ID)
		if status.Phase != cluster.Known || !d.done.has(podKey(p), status.Revision) {
			err := d.why(p, status)
			k.State, k.Text = gate.Isolated, err.Error()
			if errors.Is(err, gate.ErrUnknown) {
				k.State = gate.Unknown
			}
		}
		list = append(list, k)
	}
	return list
}

// why says what a sandbox waits for.
func (d *Gate) why(p gate.Pod, s cluster.SandboxStatus) error {
	missing := d.store.Missing()
	switch {
	case len(missing) > 0:
		return fmt.Errorf("the agent has no complete list of %v yet: is the API server reachable?", missing)
	case s.Phase == cluster.Waiting:
		return fmt.Errorf("%w: no pod %s/%s with UID %q on node %s has come from the API", gate.ErrUnknown,
			p.Namespace, p.Name, p.UID, d.node)
	case s.Phase == cluster.Superseded:
		return fmt.Errorf("a newer sandbox has the addresses or the pod, or the API says that the pod has others " +
			"or is finished, or the addresses are reserved; see /statusz of the agent")
	case s.Phase == cluster.Unannounced:
		return errWithdrawn
	}
	return errors.New("the kernel has not taken the pod's verdicts yet; see /statusz of the agent")
}

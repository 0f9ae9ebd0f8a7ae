// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/apiserver"
	"github.com/podwall/podwall/internal/lab/process"
)

// Peer is another program to be measured beside ours.
type Peer struct {
	Name string
	// Command is run by sh in each node's network namespace, as if on the node:
	// KUBECONFIG and NODE_NAME are set.
	Command string
	// Settle is how long it gets to write its rules, each time it is started.
	Settle time.Duration
}

// peers are the programs of one setting while they run, one in each node.
type peers struct {
	procs  []*process.Process
	relays []io.Closer
}

// startPeers starts the peer in both nodes and waits as long as it needs to.
func startPeers(ctx context.Context, p Peer, api *apiserver.Server, bed *lab.Bed, dir string) (all *peers, err error) {
	all = &peers{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting peer %s: %w", p.Name, err), all.stop())
		}
	}()
	for _, name := range nodeNames() {
		node := bed.Node(name)
		relay, err := api.Relay(ctx, node.NS)
		if err != nil {
			return all, err
		}
		all.relays = append(all.relays, relay)
		cmd := exec.Command("sh", "-c", p.Command)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+api.Kubeconfig, "NODE_NAME="+name)
		proc, err := process.Start(cmd, process.Options{Name: p.Name + " of " + name,
			Log: filepath.Join(dir, "*.log"), NS: node.NS, Group: true})
		if err != nil {
			return all, err
		}
		all.procs = append(all.procs, proc)
	}
	select {
	case <-time.After(p.Settle):
	case <-ctx.Done():
		return all, ctx.Err()
	}
	return all, enforced(ctx, bed, all.procs)
}

// knock is how long a datagram may take to the pod that policies close.
const knock = 50 * time.Millisecond

// enforced returns when the peers enforce: the pod that policies close is not
// reached from its own node any more.
func enforced(ctx context.Context, bed *lab.Bed, list []*process.Process) error {
	closed := bed.Pod(podKey("closed"))
	at := netip.AddrPortFrom(closed.Addrs[0], port)
	var ear *net.UDPConn
	err := closed.NS.Do(func() (err error) {
		ear, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return fmt.Errorf("listening in the pod that policies close: %w", err)
	}
	defer func() { _ = ear.Close() }() // it only listened
	return process.Until(ctx, "a pod that policies close to be closed", func(ctx context.Context) (bool, error) {
		mouth, err := bed.Pod(podKey("near")).NS.Dial(ctx, "udp", at.String())
		if err != nil {
			return false, err
		}
		defer mouth.Close()
		_, err = mouth.Write([]byte("knock"))
		if err = errors.Join(err, ear.SetReadDeadline(time.Now().Add(knock))); err != nil {
			return false, err
		}
		_, err = ear.Read(make([]byte, 16))
		return errors.Is(err, os.ErrDeadlineExceeded), nil
	}, list...)
}

func (p *peers) stop() error {
	errs := []error{process.StopAll(p.procs)}
	for _, r := range p.relays {
		errs = append(errs, r.Close())
	}
	return errors.Join(errs...)
}

// besides are the settings of a group with peers: our own, which gives the base,
// other nodes without an agent, and each peer on nodes of its own. A peer's rules
// stay when it ends, so its nodes are no base.
func besides(list []Peer) group {
	g := group{name: peersGroup, title: "beside peers", measurements: everything(), proxied: true}
	ours := setting("podwall", usual())
	null := subject{name: "nodes without an agent", plan: ours.plan, sharedBase: true,
		modes: []mode{{name: "no agent, other nodes"}}}
	null.plan.agent = nil
	g.subjects = twice([]subject{ours, null})
	for _, p := range list {
		one := null
		one.name, one.unbarred, one.modes = p.Name, true, []mode{{name: p.Name, peer: &p}}
		g.subjects = append(g.subjects, one)
	}
	return g
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package web

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/process"
)

// The settings that are always there. The second base shows the noise.
const (
	noAgent      = "no agent"
	noAgentAgain = "no agent again"
	podwall      = "podwall"
	// ownProxy is podwall with its service proxy in place of kube-proxy.
	ownProxy = "podwall, its own proxy"
)

// setting is one of those that take turns.
type setting struct {
	name string
	// on makes it so, and returns how it ends, also when it failed. It is nil for
	// the node as it is without an agent.
	on func(context.Context) (off func() error, err error)
}

func (s *stage) settings() []setting {
	list := []setting{{name: noAgent}, {podwall, s.podwall}, {ownProxy, s.ownProxy}}
	for _, p := range s.Peers {
		list = append(list, setting{p.Name, func(ctx context.Context) (func() error, error) { return s.peer(ctx, p) }})
	}
	return append(list, setting{name: noAgentAgain})
}

// turn measures one setting at each concurrency.
func (s *stage) turn(ctx context.Context, set setting) (list []sample, err error) {
	off, err := s.begin(ctx, set)
	defer func() { err = errors.Join(err, off()) }()
	if err != nil {
		return nil, err
	}
	if err := s.forget(); err != nil {
		return nil, err
	}
	if _, err := s.patient(ctx, set.name, s.Requests/10+1, 10); err != nil { // not counted: caches and neighbours
		return nil, err
	}
	for _, c := range s.Concurrency {
		got, err := s.patient(ctx, set.name, s.Requests, c)
		if err != nil {
			return nil, fmt.Errorf("concurrency %d: %w", c, err)
		}
		list = append(list, got)
	}
	return list, nil
}

// begin readies a turn, after a look that the last one left nothing. It always
// returns how the turn ends.
func (s *stage) begin(ctx context.Context, set setting) (off func() error, err error) {
	if err := s.open(ctx); err != nil || set.on == nil {
		return func() error { return nil }, err
	}
	return set.on(ctx)
}

// arguments are the command line of the reference setup, and what is added. The nodes
// share a file system here, unlike real ones, so each agent needs a socket of its own.
func (s *stage) arguments(node string, more ...string) []string {
	return append([]string{"--run-router=false", "--run-firewall=true", "--kubeconfig=" + s.server.Kubeconfig,
		"--iptables-sync-period=1s", "--cache-sync-timeout=5m",
		"--gate-socket=" + filepath.Join(s.dir, node+".sock")}, more...)
}

func (s *stage) environment(node string) []string {
	return append(os.Environ(), "NODE_NAME="+node, "KUBECONFIG="+s.server.Kubeconfig)
}

// runBoth starts a program on both real nodes.
func (s *stage) runBoth(name string, command func(node string) *exec.Cmd) (list []*process.Process, err error) {
	for _, node := range realNodes() {
		cmd := command(node)
		cmd.Env = s.environment(node)
		p, err := process.Start(cmd, process.Options{Name: name + " of " + node, Log: filepath.Join(s.dir, "*.log"),
			NS: s.bed.Node(node).NS, Group: true})
		if err != nil {
			return list, err
		}
		list = append(list, p)
	}
	return list, nil
}

// podwall runs our agents, and takes away what they put into the kernel.
func (s *stage) podwall(ctx context.Context) (func() error, error) {
	return s.agents(ctx, "--run-service-proxy=false")
}

// ownProxy runs our agents in place of kube-proxy, which is there again afterwards.
func (s *stage) ownProxy(ctx context.Context) (func() error, error) {
	err := process.StopAll(s.proxies)
	s.proxies = nil
	if err != nil {
		return func() error { return nil }, err
	}
	// The client is a pod outside of the nodes' ranges, and keeps its address.
	away, err := s.agents(ctx, "--run-service-proxy=true", "--takeover",
		"--cluster-cidr=10.244.0.0/16,14.208.0.0/12")
	off := func() error {
		if err := errors.Join(away(), ctx.Err()); err != nil {
			return err
		}
		if err := s.startProxies(ctx); err != nil {
			return err
		}
		return s.proxied(ctx)
	}
	return off, err
}

// agents runs our agents until they enforce the policy.
func (s *stage) agents(ctx context.Context, more ...string) (func() error, error) {
	agents, err := s.runBoth(podwall, func(node string) *exec.Cmd {
		return exec.Command(s.Agent, s.arguments(node, more...)...)
	})
	off := func() error { return errors.Join(process.StopAll(agents), s.cleanUp()) }
	if err != nil {
		return off, err
	}
	if err := process.Ready(ctx, agents...); err != nil {
		return off, err
	}
	// Ready means enforced, so there is nothing to wait for.
	if passed := s.strangers(ctx); passed != 0 {
		return off, fmt.Errorf("the agents are ready and a stranger passed %d of %d times", passed, len(targets()))
	}
	return off, s.served(ctx)
}

func (s *stage) cleanUp() error {
	var errs []error
	for _, node := range realNodes() {
		cmd := exec.Command(s.Agent, append(s.arguments(node), "--cleanup-config")...)
		cmd.Env = s.environment(node)
		if err := process.Run(s.bed.Node(node).NS, cmd); err != nil {
			errs = append(errs, fmt.Errorf("cleaning up %s: %w", node, err))
		}
	}
	return errors.Join(errs...)
}

// settled is how long a peer may take to enforce the policy.
const settled = time.Minute

// peer runs another agent. When it enforces can be seen by packets only; one
// that never does is measured all the same, and the report says so.
func (s *stage) peer(ctx context.Context, p Peer) (func() error, error) {
	list, err := s.runBoth(p.Name, func(string) *exec.Cmd { return exec.Command("sh", "-c", p.Command) })
	off := func() error { return process.StopAll(list) }
	if err != nil {
		return off, err
	}
	for deadline := time.Now().Add(settled); time.Now().Before(deadline); {
		if err := process.Lives(list...); err != nil {
			return off, err
		}
		if s.strangers(ctx) == 0 {
			return off, s.served(ctx)
		}
		if ctx.Err() != nil {
			return off, ctx.Err()
		}
	}
	s.remark(fmt.Sprintf("%s did not enforce the policy within %s: a stranger still passed. It was measured so.",
		p.Name, settled))
	return off, nil
}

func (s *stage) remark(text string) {
	for _, r := range s.remarks {
		if r == text {
			return
		}
	}
	s.remarks = append(s.remarks, text)
}

// targets are what a stranger tries: the Service and each pod.
func targets() []netip.AddrPort {
	list := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(testedAddress), port)}
	for _, p := range servers() {
		list = append(list, netip.AddrPortFrom(p.addr, port))
	}
	return list
}

// strangers counts the targets that a stranger reaches.
func (s *stage) strangers(ctx context.Context) int { return s.reached(ctx, s.stranger) }

func (s *stage) reached(ctx context.Context, from *lab.Endpoint) int {
	const wait = 500 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	passed := 0
	for _, to := range targets() {
		group.Go(func() {
			conn, err := from.NS.Dial(ctx, "tcp", to.String())
			if err != nil {
				return
			}
			_ = conn.Close() // it was open, that is all
			mu.Lock()
			defer mu.Unlock()
			passed++
		})
	}
	group.Wait()
	return passed
}

// open returns when nothing is in the way of anybody: the last agent has left
// nothing, and the servers serve.
func (s *stage) open(ctx context.Context) error {
	const what = "a stranger to pass without an agent (what did the last one leave in the kernel?)"
	return process.Until(ctx, what, func(ctx context.Context) (bool,
		error) {
		return s.strangers(ctx) == len(targets()), nil
	}, s.servers...)
}

// served returns when the client that the policy allows reaches everything.
func (s *stage) served(ctx context.Context) error {
	return process.Until(ctx, "the client to pass", func(ctx context.Context) (bool, error) {
		return s.reached(ctx,
			s.client) == len(targets()), nil
	}, s.servers...)
}

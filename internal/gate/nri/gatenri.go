// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package nri is the start gate's other front: a plugin of the Node Resource
// Interface, by which container runtimes say synchronously that a sandbox runs,
// before any container is made in it. It announces the pod at the agent's gate
// (package gate), for pod networks whose configuration must not be touched.
//
// It changes nothing of a container. It never opens: a pod that starts without
// an answer is closed in the kernel. One thing it must never do is wait long: a
// runtime asks its plugins under one lock, so that a pod that waits keeps every
// other pod of the node waiting.
package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/podwall/podwall/internal/gate"
	"github.com/podwall/podwall/internal/wake"
)

// The defaults. Timeout is below the two seconds after which runtimes drop a
// plugin, and short since others wait meanwhile.
const (
	DefaultSocket  = api.DefaultSocketPath
	DefaultTimeout = time.Second
)

// Network is the name under which the sandboxes of this front are announced.
const Network = "nri"

// Plugin tells the agent what the runtime runs.
type Plugin struct {
	Gate    gate.Client
	Socket  string        // of the runtime
	Timeout time.Duration // how long a start waits
	Refuse  bool          // a pod that is not enforced by then does not start
	// Skeleton closes a pod with these interfaces on the node's side and these
	// addresses; see cni.Plugin. Nil does nothing.
	Skeleton func(ctx context.Context, links []string, addrs []netip.Addr) error
	Log      *slog.Logger

	now     wake.Signal        // has what runs announced at once; of Run
	mu      sync.Mutex         // guards running
	running map[string]sandbox // by name
}

// sandbox is one that runs.
type sandbox struct {
	pod gate.Pod
	// seen says that we could see its network namespace, so that we see its end too.
	seen bool
}

// The wait before the next connection doubles from the first to the last.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 15 * time.Second
	// quiet is how long a runtime may take from our connection to the
	// configuration that it sends.
	quiet = 15 * time.Second
)

// Run serves a runtime until ctx ends. A runtime that is not there, or that goes
// away, is tried again for ever.
func (p *Plugin) Run(ctx context.Context) {
	p.now = wake.New()
	var follow sync.WaitGroup
	defer follow.Wait()
	follow.Go(func() { p.follow(ctx) })
	retry := firstRetry
	for ctx.Err() == nil {
		s := session{Plugin: p, configured: make(chan struct{})}
		err := s.run(ctx)
		if s.served() {
			retry = firstRetry
		}
		if ctx.Err() != nil {
			return
		}
		p.Log.Warn("no runtime, trying again", "socket", p.Socket, "after", retry, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, lastRetry)
	}
}

// session is one connection to a runtime.
type session struct {
	*Plugin
	stub       stub.Stub
	configured chan struct{}
	once       sync.Once
}

// run returns when the connection has ended. The library waits for ever for a
// runtime that dies before it has configured us; then it is left behind.
func (s *session) run(ctx context.Context) error {
	conns := make(chan net.Conn, 1)
	dial := func(path string) (net.Conn, error) {
		c, err := net.DialTimeout("unix", path, quiet)
		if err == nil {
			conns <- c
		}
		return c, err
	}
	var err error
	s.stub, err = stub.New(s, stub.WithPluginName("podwall-gate"), stub.WithPluginIdx("90"),
		stub.WithSocketPath(s.Socket), stub.WithDialer(dial), stub.WithOnClose(func() {}),
		stub.WithLogger(logger{s.Log}))
	if err != nil {
		return fmt.Errorf("making the NRI plugin: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.stub.Run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-s.configured:
		return <-ended
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(quiet):
		select {
		case c := <-conns:
			_ = c.Close() // it is of no use
		default:
		}
		return errors.New("the runtime did not configure the plugin")
	}
}

func (s *session) served() bool {
	select {
	case <-s.configured:
		return true
	default:
		return false
	}
}

// Configure is the runtime's first word.
func (s *session) Configure(_ context.Context, _, runtime, version string) (api.EventMask, error) {
	s.Log.Info("connected", "runtime", runtime, "version", version)
	s.once.Do(func() { close(s.configured) })
	return 0, nil // all that we have a method for
}

// Synchronize says which sandboxes run already. They are announced without
// waiting: they have started long ago. Stopped ones are among them; those have
// no network namespace any more.
func (s *session) Synchronize(_ context.Context, pods []*api.PodSandbox, _ []*api.Container) (
	[]*api.ContainerUpdate, error) {
	running := map[string]sandbox{}
	for _, p := range pods {
		if missing(netnsOf(p)) {
			continue
		}
		pod, ok, err := podOf(p)
		if err != nil {
			s.Log.Warn("a sandbox is not announced", "pod", p.GetNamespace()+"/"+p.GetName(), "err", err)
		}
		if ok {
			running[pod.Sandbox] = sandbox{pod, true}
		}
	}
	s.mu.Lock()
	s.running = running
	s.mu.Unlock()
	s.now.Set()
	return nil, nil
}

// RunPodSandbox holds the sandbox until the kernel has its verdicts.
func (s *session) RunPodSandbox(_ context.Context, p *api.PodSandbox) error {
	pod, ok, err := podOf(p)
	switch {
	case err != nil: // its addresses are not known: it is closed, whatever we do
		s.Log.Warn("a pod starts closed", "pod", p.GetNamespace()+"/"+p.GetName(), "err", err)
		if err := s.admission(0).CloseNow(gate.Pod{}); err != nil {
			return fmt.Errorf("pod %s/%s would start open: it could not be closed: %w", p.GetNamespace(), p.GetName(),
				err)
		}
		if s.Refuse {
			return err
		}
		return nil
	case !ok:
		return nil
	}
	s.mu.Lock()
	if s.running == nil {
		s.running = map[string]sandbox{}
	}
	s.running[pod.Sandbox] = sandbox{pod, !missing(pod.Netns)}
	s.mu.Unlock()
	return s.announce(pod, s.limit())
}

// limit returns how long a start may wait: less than the runtime waits for us.
// It says that once, and not in the context of a call.
func (s *session) limit() time.Duration {
	theirs := s.stub.RequestTimeout()
	if theirs <= 0 {
		theirs = stub.DefaultRequestTimeout
	}
	return min(s.Timeout, theirs*3/4)
}

// admission decides about pods, which wait so long at most: with closeWait, and a
// look that began before its end, still less than a runtime waits.
func (p *Plugin) admission(limit time.Duration) gate.Admission {
	return gate.Admission{Client: p.Gate, Close: p.Skeleton, CloseWait: closeWait, Wait: limit, Refuse: p.Refuse}
}

// announce returns an error if the pod must not start.
func (p *Plugin) announce(pod gate.Pod, limit time.Duration) error {
	d := p.admission(limit).Admit(pod)
	name := pod.Namespace + "/" + pod.Name
	switch d.Verdict {
	case gate.StartEnforced:
		if d.NotClosed != nil {
			p.Log.Warn("a pod was not closed before it was enforced", "pod", name, "err", d.NotClosed)
		}
		return nil
	case gate.StartClosed:
		p.Log.Warn("a pod starts closed", "pod", name, "state", d.Reply.State, "why", d.Reply.Text, "err", d.Err)
		return nil
	case gate.TooLate:
		return fmt.Errorf("pod %s is not enforced yet (%s): %w", name, d.Why(), errors.Join(errLate, d.Err))
	}
	return fmt.Errorf("pod %s would start open: it is not enforced (%s), and it could not be closed: %w",
		name, d.Why(), d.NotClosed)
}

// errLate says why a pod does not start.
var errLate = errors.New("the kernel does not have its verdicts in time")

// StopPodSandbox comes when the containers have ended.
func (s *session) StopPodSandbox(_ context.Context, sandbox *api.PodSandbox) error {
	s.withdraw(sandbox)
	return nil
}

// RemovePodSandbox comes later, and alone when the stop was missed.
func (s *session) RemovePodSandbox(_ context.Context, sandbox *api.PodSandbox) error {
	s.withdraw(sandbox)
	return nil
}

func (p *Plugin) withdraw(sandbox *api.PodSandbox) {
	p.mu.Lock()
	delete(p.running, sandbox.GetId())
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), shortWait)
	defer cancel()
	if err := p.Gate.Del(ctx, sandbox.GetId()); err != nil {
		p.Log.Info("sandbox not withdrawn: agent has no record of it", "sandbox", sandbox.GetId(), "err", err)
	}
}

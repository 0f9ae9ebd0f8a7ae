// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/apiserver"
	"github.com/podwall/podwall/internal/lab/measure/witness"
	"github.com/podwall/podwall/internal/lab/process"
)

// The namespaces of the pods that the measured changes are about: the pod of this
// node that is protected, those that come and go, and two that are relabelled.
const (
	benchNS  = "bench"
	clientNS = "clients"
	smallNS  = "small"
	bigNS    = "big"

	small    = 8 // pods of the small one
	visitors = 4 // addresses of pods of this node that come and go
)

// world is one node with its pods in a lab, a cluster around it that only exists
// as objects, and an agent on the node.
type world struct {
	shape   shape
	dir     string
	bed     *lab.Bed
	node    *lab.Endpoint
	src     source
	program program
	agent   *agent
	witness *witness.Witness
	fresh   int // pods made so far
}

// build makes the lab and fills the source. The caller closes the world, also
// after an error.
func (w *world) build(ctx context.Context, cfg Config, real bool) (err error) {
	if w.dir, err = os.MkdirTemp("", "podwall-bench-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if w.bed, err = lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: []string{nodeName}}); err != nil {
		return err
	}
	w.node = w.bed.Node(nodeName)
	host, err := w.bed.AddHost("api", []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, 1})})
	if err != nil {
		return err
	}
	cfg.say("wiring %d pods of the node", len(w.shape.local()))
	for i, ip := range w.shape.local() {
		if _, err := w.bed.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: "local", Name: fmt.Sprintf("p%d", i)},
			Node: nodeName, IPs: []netip.Addr{ip}}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	cfg.say("writing %d pods, %d policies", w.shape.pods, w.shape.policies)
	if err := w.openSource(ctx, cfg, host, real); err != nil {
		return err
	}
	w.program = program{path: cfg.Agent, kubeconfig: w.src.kubeconfig(), dir: w.dir, ns: w.node.NS,
		extra: cfg.AgentArgs}
	return w.src.fill(ctx, w.shape, w.node.Addrs)
}

// openSource starts what the agent reads; the source stays nil after an error.
func (w *world) openSource(ctx context.Context, cfg Config, host *lab.Endpoint, real bool) error {
	if !real {
		s, err := newSynthetic(ctx, host, w.dir)
		if err == nil {
			w.src = s
		}
		return err
	}
	s, err := apiserver.Start(ctx, cfg.KubeAPI, host.NS, host.Addrs[0])
	if err == nil {
		w.src = server{s}
	}
	return err
}

// close ends everything that was started; what was not is nil.
func (w *world) close() error {
	var errs []error
	if w.witness != nil {
		errs = append(errs, w.witness.Close())
	}
	if w.agent != nil {
		errs = append(errs, w.agent.Stop())
	}
	if w.src != nil {
		errs = append(errs, w.src.close())
	}
	if w.bed != nil {
		errs = append(errs, w.bed.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// restart starts the agent on a node without rules.
func (w *world) restart() (err error) {
	if w.agent != nil {
		err = w.agent.Stop()
		w.agent = nil
		if err != nil {
			return err
		}
		if err := w.program.cleanup(); err != nil {
			return err
		}
	}
	w.agent, err = w.program.start()
	return err
}

// watch begins to listen to the kernel. It is done after the first sync, so that
// its flood of notifications is nobody's cost.
func (w *world) watch() (err error) {
	if w.witness == nil {
		w.witness, err = witness.Listen(w.node.NS.FD())
	}
	return err
}

// remote is a new pod of another node and its number.
func (w *world) remote(role, tier string) (*corev1.Pod, netip.Addr, int) {
	w.fresh++
	return client(w.fresh, role, tier), ofEvent(w.fresh), w.fresh
}

// client is a pod that a protected one lets in if its role is client. No other
// policy knows the tier "none": with it the role alone decides whether the kernel
// sees the address.
func client(n int, role, tier string) *corev1.Pod {
	return newPod(clientNS, fmt.Sprintf("c%d", n), "node-1", ofEvent(n),
		map[string]string{"app": "client", "tier": tier, "role": role})
}

// timed makes a change and returns the time until the kernel has come to all of
// the addresses, or has let them go.
func (w *world) timed(ctx context.Context, gone bool, list []netip.Addr,
	act func() (time.Time, error)) (time.Duration, error) {
	seen := w.witness.Expect(gone, list...)
	start, err := act()
	if err != nil {
		return 0, err
	}
	at, err := w.await(ctx, seen)
	if err != nil {
		return 0, fmt.Errorf("%v (gone: %t): %w", list[0], gone, err)
	}
	return at.Sub(start), nil
}

// await returns when the kernel showed the last of what is expected.
func (w *world) await(ctx context.Context, seen *witness.Arrival) (time.Time, error) {
	return w.witness.Await(ctx, seen, process.Patience, w.agent.Process)
}

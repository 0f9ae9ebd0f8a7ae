// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package lab makes a small cluster out of network namespaces on this
// machine's kernel: nodes, pods wired to them in one of several ways, hosts
// outside, and Services.
//
// A bed has no way out: no uplink, no route to the machine that it runs on,
// and nothing of it is in the namespace that it was made from. It holds its
// namespaces by file descriptors, so it goes away with the process. The package
// enforces no policy and knows none; tests and the lab command run the agent
// inside the nodes and look with package probe at what arrives.
package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/podwall/podwall/internal/cluster"
)

// Wiring says how pods are connected to their node.
type Wiring string

// The wirings.
const (
	// Routed: a veth pair for each pod, a host route to it, no subnet. VPC
	// style plugins wire so.
	Routed Wiring = "routed"
	// Bridge: pods of a node on the bridge kube-bridge with an on-link subnet,
	// and no IP filtering of bridged packets unless the agent switches it on.
	Bridge Wiring = "bridge"
	// CNIBridge and CNIPtp are wired by the plugins "bridge" and "ptp" of the
	// CNI project, run as processes, with "host-local".
	CNIBridge Wiring = "cni-bridge"
	CNIPtp    Wiring = "cni-ptp"
	// Tap is Routed with a tap for each pod instead of a veth pair, as for virtual machines. This process
	// carries the frames between the tap and the pod, so it is slower than the others.
	Tap Wiring = "tap"
)

// Wirings lists all wirings but Tap, which differs from Routed in the kind of interface only.
var Wirings = [...]Wiring{Routed, Bridge, CNIBridge, CNIPtp}

// BridgeName is the name of the bridge on each node.
const BridgeName = "kube-bridge"

// Config describes a bed.
type Config struct {
	Wiring Wiring
	// Nodes are the names of the nodes; their addresses are those of complete.FreeNetwork(Used),
	// in this order.
	Nodes []string
	// Used are addresses that pods, hosts and Services will have, as far as they are
	// known. The lab then keeps away from them: without it, a pod on a bridge cannot
	// have the first address of its subnet.
	Used []netip.Addr
	// Pods are those of Used that pods will have: an IPv4 subnet of a bridge is wider than
	// a /24 where a pod has the first or the last address of the /24.
	Pods []netip.Addr
	// CNIBin is the directory of the plugins, for the CNI wirings.
	CNIBin string
	// Hairpin lets a bridge send a frame back to the pod that it came from, as network
	// plugins are told to in Kubernetes (hairpinMode) for pods that use their own
	// Services. Real nodes are of both kinds.
	Hairpin bool
	// Services says what the stand-in for kube-proxy does beside SetServices.
	Services ServiceOptions
	// Log may be nil.
	Log *slog.Logger
}

// Bed is a running lab. Its methods may be called from several goroutines.
type Bed struct {
	cfg   Config
	wirer wirer
	plan  *plan
	dir   string // files of the plugins; empty when not needed

	mu       sync.Mutex // guards everything below
	fabric   *space
	nodes    map[string]*node
	pods     map[string]*pod  // by Key.String
	hosts    map[string]*host // by name
	services []Service
	links    int // count of links made so far; names and addresses come from it
}

// wirer connects pods to nodes. Both run with the bed locked.
type wirer interface {
	// prepare readies a new node.
	prepare(n *node) error
	// attach connects a pod whose namespace is empty but for loopback.
	attach(p *pod) error
	// detach undoes what would stay after the pod's namespace is gone.
	detach(p *pod) error
}

// NewBed makes the nodes. The caller must have entered its own world, see
// netns.Enter, and must Close the bed.
func NewBed(cfg Config) (*Bed, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bed{cfg: cfg, plan: newPlan(cfg.Used, cfg.Pods),
		nodes: map[string]*node{}, pods: map[string]*pod{}, hosts: map[string]*host{}}
	if err := b.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("building the lab: %w", err), b.Close())
	}
	return b, nil
}

func (b *Bed) build() (err error) {
	if err := checkNodes(b.cfg.Nodes); err != nil {
		return err
	}
	if b.wirer, err = b.newWirer(); err != nil {
		return err
	}
	if b.fabric, err = newFabric(); err != nil {
		return err
	}
	for i, name := range b.cfg.Nodes {
		if err := b.addNode(i, name); err != nil {
			return fmt.Errorf("adding node %s: %w", name, err)
		}
	}
	return b.SetServices(nil)
}

func (b *Bed) newWirer() (wirer, error) {
	switch b.cfg.Wiring {
	case Routed, Tap:
		return routed{b}, nil
	case Bridge:
		return bridged{b}, nil
	case CNIBridge, CNIPtp:
		dir, err := os.MkdirTemp("", "podwall-lab-")
		if err != nil {
			return nil, fmt.Errorf("making a directory for the plugins: %w", err)
		}
		b.dir = dir
		return newPlugged(b)
	}
	return nil, fmt.Errorf("unknown wiring %q", b.cfg.Wiring)
}

// Close takes the bed down. Processes that run inside it keep their namespace
// alive until they end.
func (b *Bed) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, p := range b.pods {
		errs = append(errs, p.close())
	}
	for _, h := range b.hosts {
		errs = append(errs, h.close())
	}
	for _, n := range b.nodes {
		errs = append(errs, n.table.conn.CloseLasting(), n.close())
	}
	if b.fabric != nil {
		errs = append(errs, b.fabric.close())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	b.pods, b.hosts, b.nodes, b.fabric, b.dir = nil, nil, nil, nil, ""
	return errors.Join(errs...)
}

// Node returns a node, or nil.
func (b *Bed) Node(name string) *Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.nodes[name]; n != nil {
		return n.Endpoint
	}
	return nil
}

// Pod returns a pod, or nil.
func (b *Bed) Pod(key cluster.Key) *Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.pods[key.String()]; p != nil {
		return p.Endpoint
	}
	return nil
}

// Endpoints returns nodes, pods and outside hosts, in this order, each sorted
// by name.
func (b *Bed) Endpoints() []*Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []*Endpoint
	for _, n := range b.sortedNodes() {
		list = append(list, n.Endpoint)
	}
	for _, name := range slices.Sorted(maps.Keys(b.pods)) {
		list = append(list, b.pods[name].Endpoint)
	}
	for _, name := range slices.Sorted(maps.Keys(b.hosts)) {
		list = append(list, b.hosts[name].Endpoint)
	}
	return list
}

func (b *Bed) sortedNodes() []*node {
	var list []*node
	for _, name := range slices.Sorted(maps.Keys(b.nodes)) {
		list = append(list, b.nodes[name])
	}
	return list
}

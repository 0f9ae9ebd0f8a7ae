// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/apiserver"
	"github.com/podwall/podwall/internal/lab/measure/meter"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/process"
)

// tableName is that of the agent's tables, in every family.
const tableName = "podwall"

func nodeNames() []string { return []string{"node1", "node2"} }

// stage is a bed of two nodes whose agents wrote their rules and ended.
type stage struct {
	bed   *lab.Bed
	dir   string
	nodes []*stageNode
	v6    bool
}

type stageNode struct {
	*lab.Endpoint
	tables *lab.Tables
	flows  *netlink.Handle
	bridge int // index of the bridge, 0 if there is none
}

// plan is how a stage is made.
type plan struct {
	wiring lab.Wiring
	shape  shape
	// found is how the agents find their nodes.
	found condition
	// agent are the arguments; nil for a stage without agents.
	agent []string
	// before readies the nodes before the agents start, nil for nothing.
	before func(context.Context, *lab.Bed) error
}

// condition is what is in the kernel of a node before its agent starts.
type condition uint8

const (
	// proxied nodes have a stand-in for kube-proxy: it translates addresses and
	// drops invalid packets.
	proxied condition = iota
	// tracked nodes track connections and translate no address.
	tracked
	// bare nodes have nothing.
	bare
)

func newStage(ctx context.Context, cfg Config, p plan) (s *stage, err error) {
	s = &stage{v6: p.shape.v6}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("building a stage: %w", err), s.close())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "podwall-bench-"); err != nil {
		return s, fmt.Errorf("making a directory: %w", err)
	}
	s.bed, err = lab.NewBed(lab.Config{Wiring: p.wiring, Nodes: nodeNames(), CNIBin: cfg.CNIBin,
		Services: lab.ServiceOptions{DropInvalid: p.found != bare}})
	if err != nil {
		return s, err
	}
	if p.found == proxied {
		if err := s.bed.SetServices(services()); err != nil {
			return s, err
		}
	}
	for _, spec := range realPods() {
		e, err := s.bed.AddPod(spec)
		if err != nil {
			return s, err
		}
		if err := e.NS.SetSysctls(lab.ManyConnections()); err != nil {
			return s, err
		}
	}
	for _, name := range nodeNames() {
		if err := s.openNode(name); err != nil {
			return s, err
		}
	}
	if p.before != nil {
		if err := p.before(ctx, s.bed); err != nil {
			return s, err
		}
	}
	if p.agent == nil {
		return s, nil
	}
	return s, s.program(ctx, cfg.Agent, p)
}

// services make the bed's stand-in for kube-proxy translate addresses, as every
// node with Services does: without that the kernel has no NAT hooks, and the
// first NAT chain on a node costs every packet something, whosever it is.
func services() []lab.Service {
	var list []lab.Service
	for i, front := range []string{"10.96.0.10", "fd96::10"} {
		backend := netip.AddrPortFrom(realPods()[0].IPs[i], port)
		list = append(list, lab.Service{Front: netip.AddrPortFrom(netip.MustParseAddr(front), port),
			Proto: packet.TCP, Backends: []netip.AddrPort{backend}})
	}
	return list
}

func (s *stage) openNode(name string) error {
	n := &stageNode{Endpoint: s.bed.Node(name)}
	s.nodes = append(s.nodes, n)
	var err error
	if n.tables, err = lab.NewTables(n.Endpoint); err != nil {
		return err
	}
	if n.flows, err = netlink.NewHandleAt(vnetns.NsHandle(n.NS.FD()), unix.NETLINK_NETFILTER,
		unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	link, err := n.flows.LinkByName(lab.BridgeName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for the bridge: %w", err)
	}
	n.bridge = link.Attrs().Index
	return nil
}

// program has the agents of both nodes write their rules.
func (s *stage) program(ctx context.Context, agent string, p plan) error {
	manifests := filepath.Join(s.dir, "manifests")
	if err := os.Mkdir(manifests, 0o700); err != nil {
		return fmt.Errorf("making a directory for manifests: %w", err)
	}
	text, err := p.shape.manifests(s.bed)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(manifests, "cluster.yaml"), text, 0o600); err != nil {
		return fmt.Errorf("writing manifests: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range s.nodes {
		g.Go(func() error { return program(ctx, n.Endpoint, agent, s.dir, manifests, p.agent) })
	}
	return g.Wait()
}

// mode is what a stage is in while it is measured.
type mode struct {
	name string
	// awake is whether packets meet the agent's rules.
	awake bool
	// unfiltered bridges do not show their packets to the IP hooks: as the node
	// was before the agent.
	unfiltered bool
	// peer runs meanwhile, if not nil.
	peer *Peer
}

// enter brings both nodes into a mode, with no connection known.
func (s *stage) enter(m mode) error {
	for _, n := range s.nodes {
		if err := n.enter(m); err != nil {
			return fmt.Errorf("switching %s: %w", n.Name, err)
		}
	}
	return nil
}

func (n *stageNode) enter(m mode) error {
	found, err := n.tables.SetDormant(tableName, !m.awake)
	if err != nil {
		return err
	}
	if m.awake && found == 0 {
		return errors.New("the agent has no table here")
	}
	if n.bridge != 0 {
		want := links.Bridged{IPv4: !m.unfiltered, IPv6: !m.unfiltered}
		if err := n.NS.Do(func() error { return links.SetBridge(n.bridge, want) }); err != nil {
			return err
		}
	}
	if err := n.flows.ConntrackTableFlush(netlink.ConntrackTable); err != nil {
		return fmt.Errorf("emptying the connection table: %w", err)
	}
	return nil
}

// request asks the meter for a kind between the pods that it is meant for.
func (s *stage) request(m measurement) meter.Request {
	to := s.bed.Pod(podKey(m.to))
	family := 0
	if s.v6 {
		family = 1
	}
	return meter.Request{Kind: m.kind, From: s.bed.Pod(podKey("client")).NS.Path(), To: to.NS.Path(),
		Server: netip.AddrPortFrom(to.Addrs[family], port), N: m.n, Times: m.times}
}

// observe enters the mode and measures; the least disturbed batch counts.
func (s *stage) observe(p *meter.Process, m mode, list []measurement) ([]float64, error) {
	if err := s.enter(m); err != nil {
		return nil, err
	}
	return s.measure(p, m, list)
}

// beside measures while a peer runs.
func (s *stage) beside(ctx context.Context, p *meter.Process, m mode, api *apiserver.Server,
	list []measurement) (values []float64, err error) {
	all, err := startPeers(ctx, *m.peer, api, s.bed, s.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, all.stop()) }()
	if values, err = s.observe(p, m, list); err != nil {
		return nil, err
	}
	return values, process.Lives(all.procs...)
}

func (s *stage) measure(p *meter.Process, m mode, list []measurement) ([]float64, error) {
	var values []float64
	for _, one := range list {
		batches, err := p.Measure(s.request(one))
		if err != nil {
			return nil, fmt.Errorf("in mode %q: %w", m.name, err)
		}
		values = append(values, slices.Min(batches)/one.per())
	}
	return values, nil
}

func (s *stage) close() error {
	var errs []error
	for _, n := range s.nodes {
		if n.tables != nil {
			errs = append(errs, n.tables.Close())
		}
		if n.flows != nil {
			n.flows.Close()
		}
	}
	if s.bed != nil {
		errs = append(errs, s.bed.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

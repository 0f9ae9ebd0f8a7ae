// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package trial puts the agent to the test: a bed of package lab with one real
// agent process in each node, a directory of manifests that all of them watch,
// and questions about who reaches whom that are answered by real packets.
//
// It owns the order of things: wires first, then manifests, then the wait until
// every agent says that it enforces exactly this content, then packets. It
// judges nothing by time: a packet arrived, or a drop counter of ours moved.
// It never knows what the right answer would be; those who ask compare.
package trial

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/source/manifest"
)

// Config describes a trial.
type Config struct {
	Wiring lab.Wiring
	Nodes  []string
	// CNIBin is the directory of the plugins, for the CNI wirings.
	CNIBin string
	// Used are addresses that the states to come have, Pods those of pods among them, see
	// lab.Config.
	Used, Pods []netip.Addr
	// Hairpin is that of lab.Config.
	Hairpin bool
	// Services are those of the lab's stand-in for kube-proxy. With OwnServices the agents serve Services,
	// and there is none.
	Services    lab.ServiceOptions
	OwnServices bool
	// Agent is the podwall-agent program. AgentArgs come after the arguments
	// that the trial gives itself.
	Agent     string
	AgentArgs []string
	// Log may be nil.
	Log *slog.Logger
}

// Host is a host outside the cluster.
type Host struct {
	Name  string
	Addrs []netip.Addr
}

// State is what a trial is brought to: the wires, and what the agents read.
// Pods of the manifests that use their node's network are not in Pods.
type State struct {
	Files    map[string][]byte // by file name, without directory
	Pods     []lab.PodSpec
	Hosts    []Host
	Services []lab.Service
}

// Trial is a running bed with its agents. Its methods are called by one
// goroutine.
type Trial struct {
	cfg       Config
	bed       *lab.Bed
	prober    *probe.Prober
	dir       string
	manifests *publisher
	nodes     []*node
	pods      map[cluster.Key]lab.PodSpec
	hosts     map[string]Host
	services  []lab.Service
	rounds    uint16
	totals    Totals
}

// node is what a trial needs of a node.
type node struct {
	name string
	// files begins the names of its files: the node's own name may be as long as a
	// file's may, and longer than a socket's.
	files    string
	counters *nft.Conn
	agent    *agent
}

// New builds the bed and starts the agents on an empty cluster. The caller must
// have entered its own world, see netns.Enter, and must Close the trial.
func New(ctx context.Context, cfg Config) (*Trial, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Trial{cfg: cfg, pods: map[cluster.Key]lab.PodSpec{}, hosts: map[string]Host{}}
	if err := t.build(ctx); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Trial) build(ctx context.Context) (err error) {
	if t.dir, err = os.MkdirTemp("", "podwall-trial-"); err != nil {
		return fmt.Errorf("making a directory for the trial: %w", err)
	}
	if t.manifests, err = newPublisher(filepath.Join(t.dir, "manifests")); err != nil {
		return err
	}
	if t.prober, err = probe.New(); err != nil {
		return err
	}
	t.bed, err = lab.NewBed(lab.Config{Wiring: t.cfg.Wiring, Nodes: t.cfg.Nodes, CNIBin: t.cfg.CNIBin,
		Used: t.cfg.Used, Pods: t.cfg.Pods, Hairpin: t.cfg.Hairpin,
		Services: t.cfg.Services, Log: t.cfg.Log})
	if err != nil {
		return err
	}
	names := slices.Sorted(slices.Values(t.cfg.Nodes))
	t.manifests.base = map[string][]byte{"trial-nodes.yaml": nodeObjects(t.bed, names)}
	if err := t.manifests.publish(nil); err != nil {
		return err
	}
	for i, name := range names {
		if err := t.startNode(name, fmt.Sprintf("node%d", i+1)); err != nil {
			return fmt.Errorf("starting node %s: %w", name, err)
		}
	}
	return t.await(ctx)
}

// startNode opens the counters early: the library cannot use a file descriptor
// above 1023.
func (t *Trial) startNode(name, files string) error {
	at := t.bed.Node(name)
	conn, err := ruleset.Open(at.NS.FD())
	if err != nil {
		return err
	}
	n := &node{name: name, files: files, counters: conn}
	t.nodes = append(t.nodes, n)
	if err := t.prober.Add(at.Probe()); err != nil {
		return err
	}
	n.agent, err = t.agentOf(n, ".log")
	return err
}

func (t *Trial) agentOf(n *node, log string) (*agent, error) {
	args := []string{"--manifests", t.manifests.dir, "--hostname-override", n.name, "--iptables-sync-period=1s",
		"--log-format=text", "--gate-socket=" + t.Gate(n.name)}
	if t.cfg.OwnServices {
		// The lab's Services have cluster addresses only.
		args = append(args, "--run-service-proxy=true", "--load-balancer-health-port=0")
	}
	return startAgent(t.bed.Node(n.name), t.cfg.Agent, filepath.Join(t.dir, n.files+log),
		append(args, t.cfg.AgentArgs...))
}

// Restart ends the agent of a node, does what is to be done between, and returns when
// a new one enforces the same. The rules stay meanwhile.
func (t *Trial) Restart(ctx context.Context, name string, between func() error) error {
	for _, n := range t.nodes {
		if n.name != name {
			continue
		}
		if err := errors.Join(n.agent.stop(), between()); err != nil {
			return err
		}
		var err error
		if n.agent, err = t.agentOf(n, "-again.log"); err != nil {
			return err
		}
	}
	return t.await(ctx)
}

// Gate returns the socket at which a node's agent takes announcements; nothing for a
// node that there is not.
func (t *Trial) Gate(node string) string {
	for _, n := range t.nodes {
		if n.name == node {
			return filepath.Join(t.dir, n.files+".sock")
		}
	}
	return ""
}

// Bed returns the bed. Pods and hosts are changed by Apply only.
func (t *Trial) Bed() *lab.Bed { return t.bed }

// Prober returns the prober that watches every endpoint of the bed.
func (t *Trial) Prober() *probe.Prober { return t.prober }

// Close ends the agents and takes the bed down. It returns an error if an agent
// did not end as it should.
func (t *Trial) Close() error {
	var errs []error
	for _, n := range t.nodes {
		if n.agent != nil {
			n.agent.Ask()
		}
	}
	for _, n := range t.nodes {
		if n.agent != nil {
			errs = append(errs, n.agent.stop())
		}
		errs = append(errs, n.counters.Close())
	}
	if t.prober != nil {
		errs = append(errs, t.prober.Close())
	}
	if t.bed != nil {
		errs = append(errs, t.bed.Close())
	}
	if t.dir != "" {
		errs = append(errs, os.RemoveAll(t.dir))
	}
	t.nodes, t.prober, t.bed, t.dir = nil, nil, nil, ""
	return errors.Join(errs...)
}

// Apply brings the bed to the state, publishes the manifests, and returns when
// every agent enforces them. Only what differs from the last state is touched;
// a pod whose node or addresses changed is made anew.
func (t *Trial) Apply(ctx context.Context, s State) error {
	if err := t.rewire(s); err != nil {
		return err
	}
	// The wires come first: an agent that learns of a pod looks for the way to
	// it, and a link or route that comes later costs it another pass.
	files := s.Files
	if t.cfg.OwnServices {
		files = maps.Clone(files)
		files["trial-services.yaml"] = serviceObjects(s.Services, s.Pods)
	}
	if err := t.manifests.publish(files); err != nil {
		return err
	}
	return t.await(ctx)
}

// rewire takes away before it adds, since an address may change its owner.
func (t *Trial) rewire(s State) error {
	pods := map[cluster.Key]lab.PodSpec{}
	for _, p := range s.Pods {
		pods[p.Key] = p
	}
	hosts := map[string]Host{}
	for _, h := range s.Hosts {
		hosts[h.Name] = h
	}
	if err := t.takeAway(pods, hosts); err != nil {
		return err
	}
	for _, key := range slices.SortedFunc(maps.Keys(pods), cluster.Key.Compare) {
		if _, there := t.pods[key]; !there {
			if err := t.watch(t.bed.AddPod(pods[key])); err != nil {
				return err
			}
			t.pods[key] = pods[key]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		if _, there := t.hosts[name]; !there {
			if err := t.watch(t.bed.AddHost(name, hosts[name].Addrs)); err != nil {
				return err
			}
			t.hosts[name] = hosts[name]
		}
	}
	if slices.EqualFunc(s.Services, t.services, equalServices) {
		return nil
	}
	t.services = s.Services
	if t.cfg.OwnServices {
		return t.bed.RouteServices(s.Services)
	}
	return t.bed.SetServices(s.Services)
}

func equalServices(a, b lab.Service) bool {
	return a.Front == b.Front && a.Proto == b.Proto && slices.Equal(a.Backends, b.Backends)
}

func (t *Trial) watch(e *lab.Endpoint, err error) error {
	if err != nil {
		return err
	}
	return t.prober.Add(e.Probe())
}

// takeAway removes pods and hosts that are not wanted, or not so. The prober
// goes first: its sockets would keep the namespace alive.
func (t *Trial) takeAway(pods map[cluster.Key]lab.PodSpec, hosts map[string]Host) error {
	for key, old := range t.pods {
		if now, stays := pods[key]; stays && now.Node == old.Node && slices.Equal(now.IPs, old.IPs) {
			continue
		}
		t.prober.Remove(key.String())
		if err := t.bed.RemovePod(key); err != nil {
			return err
		}
		delete(t.pods, key)
	}
	for name, old := range t.hosts {
		if now, stays := hosts[name]; stays && slices.Equal(now.Addrs, old.Addrs) {
			continue
		}
		t.prober.Remove(name)
		if err := t.bed.RemoveHost(name); err != nil {
			return err
		}
		delete(t.hosts, name)
	}
	return nil
}

// await returns when every agent enforces what the directory holds.
func (t *Trial) await(ctx context.Context) error {
	digest, err := manifest.Digest(t.manifests.dir)
	if err != nil {
		return err
	}
	for _, n := range t.nodes {
		if err := n.agent.await(ctx, digest); err != nil {
			return fmt.Errorf("waiting for the agent of %s: %w", n.name, err)
		}
	}
	return nil
}

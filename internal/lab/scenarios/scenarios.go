// SPDX-License-Identifier: Apache-2.0

// Package scenarios reads what Services must mean, as data: objects as manifests, packets between ends
// that have names, and where each may go. The files are testdata/services; its README describes the
// format.
//
// It owns the format, turns a scenario into values of package cluster and writes answers in its words. It
// judges nothing and opens no file by itself: whoever asks a model, sends packets or runs a proxy compares the answers.
package scenarios

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// World is what all scenarios have in common.
type World struct {
	ServiceRanges []netip.Prefix `json:"serviceRanges"`
	Nodes         []Node         `json:"nodes"`
	Pods          []Pod          `json:"pods"`
	// Outside are hosts that are not in the cluster.
	Outside []Host `json:"outside"`
}

// Host is an end with a name.
type Host struct {
	Name string       `json:"name"`
	IPs  []netip.Addr `json:"ips"` // IPv4, IPv6
}

// Node is a node; the ranges are those of its pods.
type Node struct {
	Host
	Zone      string         `json:"zone"`
	PodRanges []netip.Prefix `json:"podRanges"`
}

// Pod is a pod.
type Pod struct {
	Host
	Node string `json:"node"`
}

// Scenario is a cluster, and what happens to packets in it.
type Scenario struct {
	Name string `json:"name"`
	// Source names what the expectation follows: a field's text, a KEP, a test of kube-proxy or of
	// Kubernetes, or a decision of this project.
	Source   string   `json:"source"`
	Settings Settings `json:"settings"`
	// Before are the objects that there were first, if that is the point of the scenario.
	Before  []json.RawMessage `json:"before,omitempty"`
	Objects []json.RawMessage `json:"objects"`
	Packets []Packet          `json:"packets"`
	// Findings are parts of the diagnostics, one of each, in any order.
	Findings []string `json:"findings,omitempty"`
	Health   []Health `json:"health,omitempty"`

	File string `json:"-"`
}

// Settings are those of every node in a scenario.
type Settings struct {
	MasqueradeAll      bool           `json:"masqueradeAll"`
	PodsUnknown        bool           `json:"podsUnknown"` // no range of the cluster's pods is known
	Strict             bool           `json:"strict"`
	ExternalRanges     []netip.Prefix `json:"externalRanges"`
	LoadBalancerRanges []netip.Prefix `json:"loadBalancerRanges"`
	// Addresses are further ones of the node that judges.
	Addresses []netip.Addr `json:"addresses"`
}

// Packet is the first packet of a connection, and where it may go.
type Packet struct {
	// From names an end; Source is another address that it uses.
	From   string     `json:"from"`
	Source netip.Addr `json:"source"`
	// To is an address or a node.
	To       string `json:"to"`
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"` // TCP if empty
	// At is the node that judges; if empty, that of the client, or the first one for a client outside.
	At string `json:"at"`
	// Goes are the allowed backends, as in a1:8080, each possible; "a1:8080 masqueraded" if the client's
	// source is replaced. Without any, Answer is reject, drop or not ours.
	Goes   []string `json:"goes"`
	Answer string   `json:"answer"`
	// Sticky is for how many seconds a client comes back to its backend.
	Sticky uint32 `json:"sticky"`
}

// Health is a health-check node port that a node must answer, with its ready endpoints.
type Health struct {
	At      string      `json:"at"`
	Port    uint16      `json:"port"`
	Service cluster.Key `json:"service"`
	Ready   int         `json:"ready"`
}

// WorldFile is the file of the World.
const WorldFile = "world.yaml"

// Read reads all files of a directory.
func Read(dir fs.FS) (*World, []*Scenario, error) {
	w := &World{}
	if err := read(dir, WorldFile, w); err != nil {
		return nil, nil, err
	}
	names, err := fs.Glob(dir, "*.yaml")
	if err != nil {
		return nil, nil, fmt.Errorf("listing scenarios: %w", err)
	}
	var all []*Scenario
	for _, name := range names {
		if name == WorldFile {
			continue
		}
		var list []*Scenario
		if err := read(dir, name, &list); err != nil {
			return nil, nil, err
		}
		for _, s := range list {
			s.File = strings.TrimSuffix(path.Base(name), ".yaml")
			if err := s.check(); err != nil {
				return nil, nil, fmt.Errorf("%s: %s: %w", name, s.Name, err)
			}
		}
		all = append(all, list...)
	}
	return w, all, nil
}

func read(dir fs.FS, name string, into any) error {
	text, err := fs.ReadFile(dir, name)
	if err != nil {
		return fmt.Errorf("reading scenarios: %w", err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

// check finds mistakes in a scenario.
func (s *Scenario) check() error {
	if s.Name == "" || s.Source == "" {
		return fmt.Errorf("no name or no source")
	}
	for i, p := range s.Packets {
		known := slices.Contains([]string{"reject", "drop", "not ours"}, p.Answer)
		if (len(p.Goes) > 0) == (p.Answer != "") || p.Answer != "" && !known {
			return fmt.Errorf("packet %d: goes or answer (reject, drop, not ours), one of them", i)
		}
	}
	return nil
}

// Snapshot returns the objects of the scenario with the nodes and pods of the world, and what is found
// wrong with single objects. Objects of the scenario replace those of the world.
func (w *World) Snapshot(objects []json.RawMessage) (*cluster.ServiceSnapshot, []cluster.Diagnostic, error) {
	snap, found := &cluster.ServiceSnapshot{}, []cluster.Diagnostic(nil)
	for _, n := range w.Nodes {
		snap.Nodes = append(snap.Nodes, &cluster.Node{Name: n.Name, Addrs: n.IPs, Zone: n.Zone})
	}
	for _, p := range w.Pods {
		snap.Pods = append(snap.Pods, &cluster.Pod{Key: cluster.Key{Namespace: "default", Name: p.Name}, Node: p.Node,
			IPs: p.IPs})
	}
	for _, raw := range objects {
		more, err := add(snap, raw)
		if err != nil {
			return nil, nil, err
		}
		found = append(found, more...)
	}
	return snap, found, nil
}

// add adds one object.
func add(snap *cluster.ServiceSnapshot, raw json.RawMessage) ([]cluster.Diagnostic, error) {
	var of struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(raw, &of); err != nil {
		return nil, fmt.Errorf("reading an object: %w", err)
	}
	switch of.Kind {
	case "Service":
		s := &corev1.Service{}
		if err := decode(raw, s); err != nil {
			return nil, err
		}
		s.Namespace = orDefault(s.Namespace)
		v, found := convert.Service(s)
		if v != nil {
			snap.Services = append(snap.Services, v)
		}
		return found, nil
	case "EndpointSlice":
		s := &discoveryv1.EndpointSlice{}
		if err := decode(raw, s); err != nil {
			return nil, err
		}
		s.Namespace = orDefault(s.Namespace)
		v, found := convert.EndpointSlice(s)
		if v != nil {
			snap.Slices = append(snap.Slices, v)
		}
		return found, nil
	case "Node":
		n := &corev1.Node{}
		if err := decode(raw, n); err != nil {
			return nil, err
		}
		snap.Nodes = slices.DeleteFunc(snap.Nodes, func(o *cluster.Node) bool { return o.Name == n.Name })
		snap.Nodes = append(snap.Nodes, convert.Node(n))
		return nil, nil
	}
	return nil, fmt.Errorf("an object of kind %q", of.Kind)
}

func orDefault(namespace string) string {
	if namespace == "" {
		return "default"
	}
	return namespace
}

func decode(raw json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("reading an object: %w", err)
	}
	return nil
}

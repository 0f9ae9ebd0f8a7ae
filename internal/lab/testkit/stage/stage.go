// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package stage is the ground for tests that send packets of their own making
// through nodes with the real agent: a fixed cast of pods on two nodes, a view
// on every drop counter, and a view on everything that enters a pod.
//
// It owns how such a test judges. A packet counts as stopped when it did not
// enter the destination's namespace and the agent's drop counters moved for it,
// and by nothing else. It makes no packet that a test did not ask for, knows
// no policy but those that the test wrote, and is used by tests only. The
// agents run as processes, as package trial starts them.
package stage

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The cast. Under the Usual policies the victim lets only the peer in, and only
// to port 80; the jailed pod may send nothing. Near and far, open and yonder are
// selected by no policy; far and yonder are alone on node2.
const (
	Victim = "shop/victim"
	Peer   = "shop/peer"
	Jailed = "shop/jailed"
	Near   = "evil/near"
	Open   = "evil/open"
	Far    = "evil/far"
	Yonder = "evil/yonder"
	Node1  = "node1"
	Node2  = "node2"
	Out    = "out" // a host outside
)

// Actor is a pod of the cast. Its label app is its name.
type Actor struct {
	Name, Node string
	V4, V6     netip.Addr
}

// Cast returns the pods.
func Cast() []Actor {
	at := func(name, node, v4, v6 string) Actor {
		return Actor{name, node, netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
	}
	return []Actor{
		at(Victim, Node1, "10.244.1.10", "fd00:244:1::10"),
		at(Peer, Node1, "10.244.1.11", "fd00:244:1::11"),
		at(Jailed, Node1, "10.244.1.12", "fd00:244:1::12"),
		at(Near, Node1, "10.244.1.20", "fd00:244:1::20"),
		at(Open, Node1, "10.244.1.21", "fd00:244:1::21"),
		at(Far, Node2, "10.244.2.20", "fd00:244:2::20"),
		at(Yonder, Node2, "10.244.2.21", "fd00:244:2::21"),
	}
}

// Setup says how a world differs from the usual one.
type Setup struct {
	Args     []string // of the agents
	V4Only   bool     // pods have no IPv6 addresses
	Services lab.ServiceOptions
	CNIBin   string // directory of the plugins, for the CNI wirings
	// Extra are annotations by which pods, by name, ask for further addresses.
	Extra map[string]string
}

// World is a trial with views. Its methods end the test when something fails
// that must work before anything can be tested.
type World struct {
	*trial.Trial
	Wiring lab.Wiring // Routed or Bridge, also of those that plugins wire
	Setup  Setup
	Conns  map[string]*nft.Conn // of the nodes
	Taps   map[string]*Tap      // of the pods and of the host outside
	Svc    []lab.Service        // what the next Enforce brings
	Marks  Marks
}

// EachWiring runs a test on routed and on bridged worlds, wired by the lab and, if Setup
// names their directory, by the CNI plugins.
func EachWiring(t *testing.T, s Setup, test func(t *testing.T, w *World)) {
	for _, w := range Wirings(s) {
		t.Run(string(w), func(t *testing.T) { test(t, New(t, w, s)) })
	}
}

// Wirings returns those that EachWiring runs a test on.
func Wirings(s Setup) []lab.Wiring {
	if s.CNIBin == "" {
		return []lab.Wiring{lab.Routed, lab.Bridge}
	}
	return lab.Wirings[:]
}

// kindOf returns Routed or Bridge, whoever wires.
func kindOf(w lab.Wiring) lab.Wiring {
	switch w {
	case lab.CNIBridge:
		return lab.Bridge
	case lab.CNIPtp, lab.Tap:
		return lab.Routed
	}
	return w
}

// EachDatapath is EachWiring with nat chains and with filter chains.
func EachDatapath(t *testing.T, s Setup, test func(t *testing.T, w *World)) {
	for _, d := range []string{"nat", "filter"} {
		t.Run(d, func(t *testing.T) {
			s := s
			s.Args = append(slices.Clone(s.Args), "--datapath="+d)
			EachWiring(t, s, test)
		})
	}
}

// New makes a world in which the Usual policies are enforced. The agent is what
// entry.AgentVariable names.
func New(t *testing.T, wiring lab.Wiring, s Setup) *World {
	t.Helper()
	tr, err := trial.New(t.Context(), trial.Config{Wiring: wiring, Nodes: []string{Node1, Node2}, CNIBin: s.CNIBin,
		Services: s.Services, Agent: os.Getenv(entry.AgentVariable), AgentArgs: s.Args})
	Check(t, err)
	t.Cleanup(func() { Check(t, tr.Close()) })
	tr.Prober().Settle = settle(t)
	w := &World{Trial: tr, Wiring: kindOf(wiring), Setup: s, Conns: map[string]*nft.Conn{}, Taps: map[string]*Tap{}}
	for _, n := range []string{Node1, Node2} {
		// The sender's best case: no reverse-path filter helps us.
		Check(t, w.NS(t, n).SetSysctls([]netns.Sysctl{{Path: "ipv4/conf/all/rp_filter", Value: "0"},
			{Path: "ipv4/conf/default/rp_filter", Value: "0"}, {Path: "ipv4/conf/eth0/rp_filter", Value: "0"}}))
		conn, err := ruleset.Open(w.NS(t, n).FD())
		Check(t, err)
		t.Cleanup(func() { Check(t, conn.Close()) })
		w.Conns[n] = conn
	}
	w.Enforce(t, Usual()...)
	for _, a := range Cast() {
		w.Taps[a.Name] = newTap(t, w.NS(t, a.Name))
	}
	w.Taps[Out] = newTap(t, w.NS(t, Out))
	return w
}

// SettleVariable names a duration for slow machines: packets of an emulated one take
// longer than 20 ms.
const SettleVariable = "PODWALL_SETTLE"

func settle(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(SettleVariable)
	if text == "" {
		return usualSettle
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", SettleVariable, err)
	}
	return d
}

// Check ends the test at an error.
func Check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Usual are the policies of the cast's description.
func Usual() []string {
	return []string{
		Policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]`),
		Policy("jailed", "jailed", `policyTypes: [Egress], egress: []`),
	}
}

// Policy writes a policy for the shop's pods of one app; an empty app is all.
func Policy(name, app, rest string) string {
	selector := "{}"
	if app != "" {
		selector = "{matchLabels: {app: " + app + "}}"
	}
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + ", namespace: shop}\n" +
		"spec: {podSelector: " + selector + ", " + rest + "}\n"
}

// Enforce makes the documents, policies as a rule, the only ones beside the
// cast, and returns when every agent enforces them.
func (w *World) Enforce(t *testing.T, documents ...string) {
	t.Helper()
	s := trial.State{Services: w.Svc, Hosts: []trial.Host{{Name: Out, Addrs: []netip.Addr{
		netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:cafe::a")}}}}
	docs := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: evil}\n"}
	for _, a := range Cast() {
		addrs := []netip.Addr{a.V4, a.V6}
		if w.Setup.V4Only {
			addrs = addrs[:1]
		}
		namespace, name, _ := strings.Cut(a.Name, "/")
		s.Pods = append(s.Pods, lab.PodSpec{Key: cluster.Key{Namespace: namespace, Name: name}, Node: a.Node,
			IPs: addrs})
		docs = append(docs, manifest(a, namespace, name, addrs, w.Setup.Extra[a.Name]))
	}
	s.Files = map[string][]byte{"cluster.yaml": []byte(strings.Join(append(docs, documents...), "---\n"))}
	Check(t, w.Apply(t.Context(), s))
}

func manifest(a Actor, namespace, name string, addrs []netip.Addr, extra string) string {
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: " + namespace + ", uid: " + name +
		", labels: {app: " + name + "}" +
		", annotations: {" + cluster.ExtraAnnotation + ": \"" + extra + "\"}}\n" +
		"spec: {nodeName: " + a.Node + ", containers: [{name: main, image: none}]}\n" +
		"status: {phase: Running, podIP: \"" + addrs[0].String() + "\", podIPs: ["
	for _, ip := range addrs {
		text += "{ip: \"" + ip.String() + "\"}, "
	}
	return text + "]}\n"
}

// Endpoint returns a node, a pod or the host outside.
func (w *World) Endpoint(t *testing.T, name string) *lab.Endpoint {
	t.Helper()
	for _, e := range w.Bed().Endpoints() {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("there is no endpoint %s", name)
	return nil
}

// NS returns the namespace of an endpoint.
func (w *World) NS(t *testing.T, name string) *netns.NS {
	t.Helper()
	return w.Endpoint(t, name).NS
}

// Addr returns an endpoint's address of a family.
func (w *World) Addr(t *testing.T, name string, v6 bool) netip.Addr {
	t.Helper()
	for _, a := range w.Endpoint(t, name).Addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	t.Fatalf("%s has no address of that family", name)
	return netip.Addr{}
}

// Handle opens a netlink socket inside an endpoint.
func (w *World) Handle(t *testing.T, name string) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(w.NS(t, name).FD()))
	Check(t, err)
	t.Cleanup(h.Close)
	return h
}

// Filter reports whether the agents judge in filter chains.
func (w *World) Filter() bool {
	return strings.Contains(strings.Join(w.Setup.Args, " "), "datapath=filter")
}

// Families runs a test for IPv4 and for IPv6.
func Families(t *testing.T, test func(t *testing.T, v6 bool)) {
	for _, f := range []struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"ipv6", true}} {
		t.Run(f.name, func(t *testing.T) { test(t, f.v6) })
	}
}

// Pick returns the address of a family.
func Pick(v6 bool, six, four string) netip.Addr {
	if v6 {
		return netip.MustParseAddr(six)
	}
	return netip.MustParseAddr(four)
}

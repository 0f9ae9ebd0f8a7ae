// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/nft"
	"github.com/podwall/podwall/internal/trial"
)

// The cast. The victim lets only the peer in, and only to port 80; the jailed
// pod may send nothing. The attackers near and far and the pods open and yonder
// are selected by no policy; far and yonder are alone on node2.
const (
	victim = "shop/victim"
	peer   = "shop/peer"
	jailed = "shop/jailed"
	near   = "evil/near"
	open   = "evil/open"
	far    = "evil/far"
	yonder = "evil/yonder"
	node1  = "node1"
	node2  = "node2"
	out    = "out" // a host outside
)

type actor struct {
	name, node string
	v4, v6     netip.Addr
}

func cast() []actor {
	at := func(name, node, v4, v6 string) actor {
		return actor{name, node, netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
	}
	return []actor{
		at(victim, node1, "10.244.1.10", "fd00:244:1::10"),
		at(peer, node1, "10.244.1.11", "fd00:244:1::11"),
		at(jailed, node1, "10.244.1.12", "fd00:244:1::12"),
		at(near, node1, "10.244.1.20", "fd00:244:1::20"),
		at(open, node1, "10.244.1.21", "fd00:244:1::21"),
		at(far, node2, "10.244.2.20", "fd00:244:2::20"),
		at(yonder, node2, "10.244.2.21", "fd00:244:2::21"),
	}
}

// setup says how a world differs from the usual one.
type setup struct {
	args     []string // of the agents
	v4only   bool     // pods have no IPv6 addresses
	services lab.ServiceOptions
}

// world is a trial, with a view on every node's counters and on everything that
// enters a pod.
type world struct {
	*trial.Trial
	wiring lab.Wiring
	setup  setup
	conns  map[string]*nft.Conn
	taps   map[string]*tap
	svc    []lab.Service
}

// eachWiring runs a test on a routed and on a bridged world, and with filter
// chains too if it is told so.
func eachWiring(t *testing.T, s setup, test func(t *testing.T, w *world)) {
	for _, w := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(w), func(t *testing.T) { test(t, newWorld(t, w, s)) })
	}
}

func eachDatapath(t *testing.T, s setup, test func(t *testing.T, w *world)) {
	for _, d := range []string{"nat", "filter"} {
		t.Run(d, func(t *testing.T) {
			s := s
			s.args = append(slices.Clone(s.args), "--datapath="+d)
			eachWiring(t, s, test)
		})
	}
}

func newWorld(t *testing.T, wiring lab.Wiring, s setup) *world {
	t.Helper()
	tr, err := trial.New(t.Context(), trial.Config{Wiring: wiring, Nodes: []string{node1, node2},
		Services: s.services, Agent: agentProgram(), AgentArgs: s.args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { check(t, tr.Close()) })
	w := &world{Trial: tr, wiring: wiring, setup: s, conns: map[string]*nft.Conn{}, taps: map[string]*tap{}}
	for _, n := range []string{node1, node2} {
		// The attacker's best case: no reverse-path filter helps us.
		check(t, w.ns(t, n).SetSysctls([]netns.Sysctl{{Path: "ipv4/conf/all/rp_filter", Value: "0"},
			{Path: "ipv4/conf/default/rp_filter", Value: "0"}, {Path: "ipv4/conf/eth0/rp_filter", Value: "0"}}))
		conn, err := nft.Open(w.ns(t, n).FD())
		check(t, err)
		t.Cleanup(func() { check(t, conn.Close()) })
		w.conns[n] = conn
	}
	w.apply(t, usual()...)
	for _, name := range append(names(), out) {
		w.taps[name] = newTap(t, w.ns(t, name))
	}
	return w
}

func names() []string {
	var list []string
	for _, a := range cast() {
		list = append(list, a.name)
	}
	return list
}

// check fails the test at once. It is for what must work before anything can be
// tested.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// usual are the policies of the cast's description.
func usual() []string {
	return []string{
		policy("victim", "victim", `policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: peer}}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]`),
		policy("jailed", "jailed", `policyTypes: [Egress], egress: []`),
	}
}

// policy writes a policy for the shop's pods of one app; an empty app is all.
func policy(name, app, rest string) string {
	selector := "{}"
	if app != "" {
		selector = "{matchLabels: {app: " + app + "}}"
	}
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + ", namespace: shop}\n" +
		"spec: {podSelector: " + selector + ", " + rest + "}\n"
}

// apply makes the policies the only ones and returns when they are enforced.
func (w *world) apply(t *testing.T, policies ...string) {
	t.Helper()
	s := trial.State{Services: w.svc, Hosts: []trial.Host{{Name: out, Addrs: []netip.Addr{
		netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:cafe::a")}}}}
	docs := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n", "apiVersion: v1\nkind: Namespace\nmetadata: {name: evil}\n"}
	for _, a := range cast() {
		addrs := []netip.Addr{a.v4, a.v6}
		if w.setup.v4only {
			addrs = addrs[:1]
		}
		namespace, name, _ := strings.Cut(a.name, "/")
		s.Pods = append(s.Pods, lab.PodSpec{Key: cluster.Key{Namespace: namespace, Name: name}, Node: a.node, IPs: addrs})
		docs = append(docs, manifest(a, namespace, name, addrs))
	}
	s.Files = map[string][]byte{"cluster.yaml": []byte(strings.Join(append(docs, policies...), "---\n"))}
	check(t, w.Apply(t.Context(), s))
}

func manifest(a actor, namespace, name string, addrs []netip.Addr) string {
	text := "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: " + namespace + ", uid: " + name + ", labels: {app: " + name + "}}\n" +
		"spec: {nodeName: " + a.node + ", containers: [{name: main, image: none}]}\n" +
		"status: {phase: Running, podIP: \"" + addrs[0].String() + "\", podIPs: ["
	for _, ip := range addrs {
		text += "{ip: \"" + ip.String() + "\"}, "
	}
	return text + "]}\n"
}

func (w *world) endpoint(t *testing.T, name string) *lab.Endpoint {
	t.Helper()
	for _, e := range w.Bed().Endpoints() {
		if e.Name == name {
			return e
		}
	}
	t.Fatalf("there is no endpoint %s", name)
	return nil
}

func (w *world) ns(t *testing.T, name string) *netns.NS {
	t.Helper()
	return w.endpoint(t, name).NS
}

// addr returns an endpoint's address of a family.
func (w *world) addr(t *testing.T, name string, v6 bool) netip.Addr {
	t.Helper()
	for _, a := range w.endpoint(t, name).Addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	t.Fatalf("%s has no address of that family", name)
	return netip.Addr{}
}

// handle opens a netlink socket inside an endpoint.
func (w *world) handle(t *testing.T, name string) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(vnetns.NsHandle(w.ns(t, name).FD()))
	check(t, err)
	t.Cleanup(h.Close)
	return h
}

// families runs a test for IPv4 and for IPv6.
func families(t *testing.T, test func(t *testing.T, v6 bool)) {
	for _, f := range []struct {
		name string
		v6   bool
	}{{"ipv4", false}, {"ipv6", true}} {
		t.Run(f.name, func(t *testing.T) { test(t, f.v6) })
	}
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cut_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
	"github.com/podwall/podwall/internal/lab/trial"
)

// The cast: one server, and on its node and on the other one a client that a
// policy will deny (role bad) and one that stays allowed (role good).
const (
	server = "server"
	near   = "near"
	good   = "good"
	far    = "far"
	fine   = "fine"
	node1  = "node1"
	node2  = "node2"

	serverPort  = 8080
	servicePort = 80
)

type actor struct{ name, node, role, v4, v6 string }

func cast() []actor {
	return []actor{
		{server, node1, "server", "10.244.1.10", "fd00:244:1::10"},
		{near, node1, "bad", "10.244.1.11", "fd00:244:1::11"},
		{good, node1, "good", "10.244.1.12", "fd00:244:1::12"},
		{far, node2, "bad", "10.244.2.11", "fd00:244:2::11"},
		{fine, node2, "good", "10.244.2.12", "fd00:244:2::12"},
	}
}

func (a actor) addrs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr(a.v4), netip.MustParseAddr(a.v6)}
}

// front is the Service's address.
func front(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr("fd00:96::10")
	}
	return netip.MustParseAddr("10.96.0.10")
}

type world struct {
	*trial.Trial
	actors []actor
	taps   map[string]*tap
	ports  uint16 // that clients had
}

// newWorld starts nodes and agents with the cast and no policy.
func newWorld(t *testing.T, wiring lab.Wiring, args ...string) *world {
	t.Helper()
	tr, err := trial.New(t.Context(), trial.Config{Wiring: wiring, Nodes: []string{node1, node2}, Agent: agentProgram(),
		AgentArgs: args})
	check(t, err)
	w := &world{Trial: tr, actors: cast(), taps: map[string]*tap{}}
	t.Cleanup(func() {
		for _, p := range w.taps {
			p.close()
		}
		check(t, tr.Close())
	})
	w.apply(t)
	for _, a := range w.actors {
		w.taps[a.name] = newTap(t, w.ns(t, a.name))
	}
	return w
}

// check fails the test at once. It is for what must work before anything can be
// tested.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// apply makes these the only policies and returns when they are enforced.
func (w *world) apply(t *testing.T, policies ...string) {
	t.Helper()
	var s trial.State
	docs := []string{"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"}
	for _, a := range w.actors {
		s.Pods = append(s.Pods, lab.PodSpec{Key: cluster.Key{Namespace: "shop", Name: a.name}, Node: a.node, IPs: a.addrs()})
		docs = append(docs, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, uid: %s, labels: {role: %s}}\n"+
			"spec: {nodeName: %s, containers: [{name: main, image: none}]}\nstatus: {phase: Running, podIP: %q, podIPs: [{ip: %q}, {ip: %q}]}\n",
			a.name, a.name, a.role, a.node, a.v4, a.v4, a.v6))
	}
	for _, v6 := range []bool{false, true} {
		for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
			s.Services = append(s.Services, lab.Service{Front: netip.AddrPortFrom(front(v6), servicePort), Proto: proto,
				Backends: []netip.AddrPort{netip.AddrPortFrom(cast()[0].addr(v6), serverPort)}})
		}
	}
	s.Files = map[string][]byte{"cluster.yaml": []byte(strings.Join(append(docs, policies...), "---\n"))}
	check(t, w.Apply(t.Context(), s))
}

func (a actor) addr(v6 bool) netip.Addr {
	if v6 {
		return a.addrs()[1]
	}
	return a.addrs()[0]
}

// port returns a port that no client has used. It is above the kernel's ephemeral ports.
func (w *world) port(a actor, v6 bool) netip.AddrPort {
	w.ports++
	return netip.AddrPortFrom(a.addr(v6), 61000+w.ports)
}

// policy writes a policy for the pods of one role.
func policy(role, rest string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + role + ", namespace: shop}\n" +
		"spec: {podSelector: {matchLabels: {role: " + role + "}}, " + rest + "}\n"
}

func (w *world) ns(t *testing.T, name string) *netns.NS {
	t.Helper()
	e := w.Bed().Pod(cluster.Key{Namespace: "shop", Name: name})
	if e == nil {
		t.Fatalf("there is no pod %s", name)
	}
	return e.NS
}

// quiet is how long both ends of a cut connection keep sending while nothing may arrive.
func quiet() time.Duration {
	if soak.Long() {
		return time.Minute
	}
	return 5 * time.Second
}

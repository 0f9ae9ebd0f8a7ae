// SPDX-License-Identifier: Apache-2.0

//go:build linux

package attack_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/testkit/stage"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// newcomer is a pod that is wired but not reported to the agents.
const newcomer = "new/comer"

func (w *world) wireNewcomer(t *testing.T) { w.wire(t, newcomer, newcomerAddrs()...) }

func newcomerAddrs() []netip.Addr { return []netip.Addr{newcomerAddr(false), newcomerAddr(true)} }

func newcomerAddr(v6 bool) netip.Addr { return stage.Pick(v6, "fd00:244:1::200", "10.244.1.200") }

// wire adds a pod without an object to the first node.
func (w *world) wire(t *testing.T, name string, ips ...netip.Addr) *lab.Endpoint {
	t.Helper()
	namespace, short, _ := strings.Cut(name, "/")
	e, err := w.Bed().AddPod(lab.PodSpec{Key: cluster.Key{Namespace: namespace, Name: short}, Node: node1, IPs: ips})
	stage.Check(t, err)
	stage.Check(t, w.Prober().Add(e.Probe()))
	t.Cleanup(func() { w.Prober().Remove(name) })
	return e
}

// A pod is closed from the moment it has an interface: the kernel knows which interfaces do not lead to
// pods, and this is none of them.
func TestAPodThatNobodyToldOfIsClosed(t *testing.T) {
	eachDatapath(t, stage.Setup{}, newcomerIsClosed)
}

func newcomerIsClosed(t *testing.T, w *world) {
	w.wireNewcomer(t)
	stage.Families(t, func(t *testing.T, v6 bool) {
		var from, to []trial.Question
		for _, proto := range []packet.Protocol{packet.TCP, packet.UDP, packet.ICMP, packet.SCTP} {
			for _, other := range []string{open, yonder, out} {
				from = append(from, w.Ask(t, newcomer, other, v6, proto, 80))
				to = append(to, w.Ask(t, other, newcomer, v6, proto, 80))
			}
			for _, node := range []string{node1, node2} {
				from = append(from, w.Ask(t, newcomer, node, v6, proto, 80))
			}
		}
		w.Denied(t, ruleset.CounterSpoofed, from...)
		w.Denied(t, ruleset.CounterUnknownPod, to...)
		w.Allowed(t, w.Ask(t, node1, newcomer, v6, packet.TCP, 80))
	})
}

func TestUnknownPodsAreOpenWhereTheOperatorSaysSo(t *testing.T) {
	for name, args := range map[string][]string{"unknown pods": {"--unknown-pods=open"}, "uplinks": {"--uplink-interfaces=x*,veth*"}} {
		t.Run(name, func(t *testing.T) {
			w := &world{stage.New(t, lab.Routed, stage.Setup{Args: args})}
			w.wireNewcomer(t)
			if name == "uplinks" {
				w.awaitOpen(t, newcomer)
			}
			stage.Families(t, func(t *testing.T, v6 bool) {
				w.Allowed(t, w.Ask(t, newcomer, open, v6, packet.TCP, 80))
				w.Allowed(t, w.Ask(t, out, newcomer, v6, packet.TCP, 80))
				w.Denied(t, ruleset.CounterIngress, w.Ask(t, newcomer, victim, v6, packet.TCP, 80))
			})
		})
	}
}

// awaitOpen returns when the agent has seen the interface of a pod.
func (w *world) awaitOpen(t *testing.T, pod string) {
	t.Helper()
	device := w.Endpoint(t, pod).HostDevice
	for end := time.Now().Add(stage.Patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		table, err := w.Conns[node1].Read()
		stage.Check(t, err)
		if slices.ContainsFunc(table.Set("non-pod-links").Entries, func(e nft.Entry) bool { return e.Key.Iface == device }) {
			return
		}
	}
	t.Fatalf("%s is not among the open interfaces", device)
}

// SPDX-License-Identifier: Apache-2.0

package gencase

import (
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
)

// change makes one to four random changes.
func (w *world) change(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		w.one(t)
	}
}

func (w *world) one(t *rapid.T) {
	switch pick(t, "change", "policy", "policy", "policy", "-policy", "pod", "-pod", "labels", "ports", "namespace",
		"swap", "move") {
	case "policy":
		w.setPolicy(t)
	case "-policy":
		w.policies = without(t, w.policies)
	case "pod":
		if len(w.pods) < 12 {
			w.addPod(t)
		}
	case "-pod":
		w.dropPod(t)
	case "labels":
		w.pods[w.anyPod(t)].Labels = gen.Labels(t)
	case "ports":
		w.pods[w.anyPod(t)].Ports = containerPorts(t)
	case "namespace":
		n := rapid.IntRange(0, len(w.namespaces)-1).Draw(t, "which namespace")
		w.namespaces[n] = namespace(t, w.namespaces[n].Name)
	case "swap":
		w.swap(t)
	case "move":
		w.move(t)
	}
}

// without returns the list without one of its items.
func without[T any](t *rapid.T, list []T) []T {
	if len(list) == 0 {
		return list
	}
	n := rapid.IntRange(0, len(list)-1).Draw(t, "which one goes")
	var rest []T
	return append(append(rest, list[:n]...), list[n+1:]...)
}

func (w *world) anyPod(t *rapid.T) int { return rapid.IntRange(0, len(w.pods)-1).Draw(t, "which pod") }

// usual reports whether the pod runs in a network of its own.
func usual(p cases.Pod) bool { return !p.HostNetwork && p.Phase == "" && p.IP.IsValid() }

// dropPod deletes a pod. Those of the nodes' network stay: they stand for the
// nodes.
func (w *world) dropPod(t *rapid.T) {
	if n := w.anyPod(t); !w.pods[n].HostNetwork {
		w.pods = append(w.pods[:n:n], w.pods[n+1:]...)
	}
}

// swap lets two pods exchange their addresses.
func (w *world) swap(t *rapid.T) {
	a, b := &w.pods[w.anyPod(t)], &w.pods[w.anyPod(t)]
	if usual(*a) && usual(*b) {
		a.IP, a.OtherIPs, b.IP, b.OtherIPs = b.IP, b.OtherIPs, a.IP, a.OtherIPs
	}
}

// move gives a pod another node and other addresses, or lets it finish.
func (w *world) move(t *rapid.T) {
	p := &w.pods[w.anyPod(t)]
	switch {
	case !usual(*p):
	case rarely(t, "finishes", 3):
		p.Phase = "Succeeded"
	default:
		free := w.freeAddrs(t)
		p.Node, p.IP, p.OtherIPs = pick(t, "new node", nodes()...), free[0], free[1:]
	}
}

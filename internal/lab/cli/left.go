// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/lab"
)

// leftOut are objects of the input that are not tried.
type leftOut struct {
	Kind    string   `json:"kind"`
	Objects []string `json:"objects"` // namespace/name, or the name
	Reason  string   `json:"reason"`
}

// maxNamed bounds how many objects are named in text.
const maxNamed = 6

// String returns a sentence for people.
func (l leftOut) String() string {
	named := strings.Join(l.Objects[:min(maxNamed, len(l.Objects))], ", ")
	if more := len(l.Objects) - maxNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%d %s %s: %s", len(l.Objects), plural(l.Kind, len(l.Objects)), l.Reason, named)
}

func plural(kind string, n int) string {
	switch {
	case n == 1:
		return kind
	case strings.HasSuffix(kind, "s"):
		return kind + "es"
	case strings.HasSuffix(kind, "y"):
		return strings.TrimSuffix(kind, "y") + "ies"
	}
	return kind + "s"
}

// whatIsLeftOut lists the objects that are not tried, and why.
func whatIsLeftOut(unused map[string][]string, snap *cluster.Snapshot, services []*corev1.Service) []leftOut {
	list := []leftOut{}
	add := func(kind, reason string, objects []string) {
		if len(objects) > 0 {
			list = append(list, leftOut{kind, objects, reason})
		}
	}
	pods := func(out func(*cluster.Pod) bool) (names []string) {
		for _, p := range snap.Pods {
			if out(p) {
				names = append(names, p.Key.String())
			}
		}
		return names
	}
	add("Pod", "on the network of the node (hostNetwork), where policies do not hold",
		pods(func(p *cluster.Pod) bool { return p.HostNetwork && !p.Finished }))
	add("Pod", "finished", pods(func(p *cluster.Pod) bool { return p.Finished }))
	add("Pod", "without an address",
		pods(func(p *cluster.Pod) bool { return !p.HostNetwork && !p.Finished && len(p.IPs) == 0 }))
	for _, reason := range []string{withoutSelector, headless, withoutPods} {
		var names []string
		for _, s := range services {
			if whyNot(s, snap.Pods) == reason {
				names = append(names, s.Namespace+"/"+s.Name)
			}
		}
		add("Service", reason, names)
	}
	for _, kind := range slices.Sorted(maps.Keys(unused)) {
		add(kind, "of no use here", unused[kind])
	}
	return list
}

// unusable lists the workloads that no pods can be made of.
func unusable(in *complete.Input) (list []leftOut) {
	for _, d := range in.Found {
		list = append(list, leftOut{d.Kind, []string{d.Object.String()}, "without a template of pods that can be read"})
	}
	return list
}

// Why a Service is not tried.
const (
	withoutSelector = "without a selector"
	headless        = "without an address of its own (headless): its pods are tried"
	withoutPods     = "without a pod that serves it"
)

func whyNot(s *corev1.Service, pods []*cluster.Pod) string {
	switch {
	case len(s.Spec.Selector) == 0 || s.Spec.Type == corev1.ServiceTypeExternalName:
		return withoutSelector
	case s.Spec.ClusterIP == corev1.ClusterIPNone:
		return headless
	case len(fronts([]*corev1.Service{s}, pods, func(netip.Addr) bool { return false })) == 0:
		return withoutPods
	}
	return ""
}

// hasBridge reports whether a bridge of the node carries its pods.
func hasBridge(w lab.Wiring) bool { return w == lab.Bridge || w == lab.CNIBridge }

// hairpinNotes says what the lab's bridges do that others may not.
func hairpinNotes(w lab.Wiring, services []front, pods []*cluster.Pod) []string {
	if !hasBridge(w) {
		return nil
	}
	var names []string
	for _, f := range services {
		for _, b := range f.Backends {
			if podHas(pods, b.Addr()) {
				names = append(names, f.name)
			}
		}
	}
	if names = sortedUnique(names); len(names) == 0 {
		return nil
	}
	return []string{"A pod reaches itself through its own Service (" + strings.Join(names, ", ") +
		") on bridges whose ports have hairpin mode, as here (hairpinMode of the CNI plugin bridge). " +
		"On others it does not, with or without policies."}
}

func podHas(pods []*cluster.Pod, a netip.Addr) bool {
	return slices.ContainsFunc(pods, func(p *cluster.Pod) bool { return p.Networked() && slices.Contains(p.IPs, a) })
}

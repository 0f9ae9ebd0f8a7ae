// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/spelling"
)

// endHelp documents references to ends of a flow.
const endHelp = `An end is [NAMESPACE/]NAME of a pod or of a workload, one pod of which stands for
all; svc/[NAMESPACE/]NAME; node/NAME, which includes pods on the node's network;
an address, in or outside of the cluster; outside, which is an address that is
no pod's and no node's; or kubelet as the source, which is the node of the destination, as for
probes.`

// target is what a reference names: pods, a Service, a node or an address.
type target struct {
	// name is how it is shown.
	name string
	// pods are those that the reference names; the first one is asked about.
	pods []*cluster.Pod
	// ends are addresses of no pod, at most one of each family.
	ends []explain.End
	// fronts are the ports of a Service.
	fronts []complete.Front
	// prober is the node of the other end.
	prober bool
	// node is the node that was named, or that has the address.
	node *cluster.Node
}

// The words that name no pod.
const (
	outside = "outside"
	kubelet = "kubelet"
)

// kinds are prefixes that say what a name is of.
var kinds = map[string]string{"pod": "pod", "pods": "pod", "po": "pod",
	"svc": "svc", "service": "svc", "services": "svc", "node": "node", "nodes": "node", "no": "node"}

// target finds what a reference names.
func (sc *scene) target(text string) (target, error) {
	switch text {
	case "":
		return target{}, errors.New("an end of the flow is empty")
	case outside:
		return target{name: text, ends: []explain.End{{Addr: sc.outside(false)}, {Addr: sc.outside(true)}}}, nil
	case kubelet:
		return target{name: text, prober: true}, nil
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() {
			return target{},
				fmt.Errorf("%s is no address that policies judge: loopback stays in the pod, others name no single end",
					a)
		}
		t := sc.atAddress(a.Unmap().WithZone(""))
		if s := sc.addresses[a.Unmap()]; s != "" && len(t.fronts) == 0 {
			return t, fmt.Errorf("%s is the address of Service %s, which %s", a, s, sc.others[s])
		}
		return t, nil
	}
	kind, key := sc.parseName(text)
	if key.Name == "" || key.Namespace == "" || strings.Contains(key.Name, "/") || kind == "node" &&
		strings.Count(text, "/") > 1 {
		return target{}, fmt.Errorf("%q names nothing: want [NAMESPACE/]NAME, svc/[NAMESPACE/]NAME or node/NAME", text)
	}
	switch kind {
	case "svc":
		return sc.service(key)
	case "node":
		return sc.namedNode(key.Name)
	}
	return sc.podOrWorkload(key)
}

// parseName reads [KIND/][NAMESPACE/]NAME; the kind may also stand behind the namespace.
func (sc *scene) parseName(text string) (kind string, key cluster.Key) {
	parts := strings.Split(text, "/")
	for i, p := range parts[:len(parts)-1] {
		if k := kinds[p]; k != "" && i < 2 {
			kind, parts = k, slices.Delete(parts, i, i+1)
			break
		}
	}
	if len(parts) == 1 {
		return kind, cluster.Key{Namespace: sc.namespace, Name: parts[0]}
	}
	return kind, cluster.Key{Namespace: parts[0], Name: strings.Join(parts[1:], "/")}
}

// outside returns an address that no pod, node or Service has.
func (sc *scene) outside(v6 bool) netip.Addr {
	a := netip.MustParseAddr("203.0.113.10")
	if v6 {
		a = netip.MustParseAddr("2001:db8:cafe::a")
	}
	for sc.taken(a) {
		a = a.Next()
	}
	return a
}

func (sc *scene) taken(a netip.Addr) bool {
	return sc.nodeAt(a) != nil ||
		slices.ContainsFunc(sc.snap.Pods, func(p *cluster.Pod) bool { return slices.Contains(p.IPs, a) }) ||
		slices.ContainsFunc(sc.fronts, func(f complete.Front) bool { return f.Has(a) })
}

func (sc *scene) atAddress(a netip.Addr) target {
	t := target{name: a.String(), node: sc.nodeAt(a), ends: []explain.End{{Addr: a}}}
	if p := sc.owner(t.ends[0]); p != nil {
		t.ends[0].Pod = p.Key
	}
	if t.node != nil {
		t.ends[0].Node = t.node.Name
	}
	for _, f := range sc.fronts {
		if f.Has(a) {
			t.fronts = append(t.fronts, f)
		}
	}
	return t
}

func (sc *scene) service(key cluster.Key) (target, error) {
	t := target{name: "svc/" + key.String()}
	var names []string
	for _, f := range sc.fronts {
		if names = append(names, f.Name); f.Name == key.String() {
			t.fronts = append(t.fronts, f)
		}
	}
	if why := sc.others[key.String()]; len(t.fronts) == 0 && why != "" {
		return t, fmt.Errorf("%s %s", t.name, why)
	}
	if len(t.fronts) == 0 {
		return t, fmt.Errorf("no Service %s%s", key, nearest(key.String(), names))
	}
	return t, nil
}

func (sc *scene) namedNode(name string) (target, error) {
	n := sc.node(name)
	if n == nil {
		var names []string
		for _, n := range sc.nodes {
			names = append(names, n.Name)
		}
		return target{}, fmt.Errorf("no node %q%s", name, nearest(name, names))
	}
	t := target{name: "node/" + name, node: n}
	for _, v6 := range []bool{false, true} {
		if a := ofFamily(n.Addrs, v6); a.IsValid() {
			t.ends = append(t.ends, explain.End{Node: name, Addr: a})
		}
	}
	if len(t.ends) == 0 {
		return t, fmt.Errorf("node %s has no address", name)
	}
	return t, nil
}

func (sc *scene) podOrWorkload(key cluster.Key) (target, error) {
	if p := sc.answers.Pod(key); p != nil {
		return target{name: key.String(), pods: []*cluster.Pod{p}}, nil
	}
	if pods := sc.made(key.Namespace, key.Name); len(pods) > 0 {
		return target{name: key.String(), pods: pods}, nil
	}
	return target{}, sc.unknown(key)
}

// unknown says that there is no such pod, and which names are near.
func (sc *scene) unknown(key cluster.Key) error {
	var names, elsewhere []string
	for _, p := range sc.snap.Pods {
		for _, name := range []string{p.Key.Name, sc.workload[p.Key]} {
			switch {
			case name == "":
			case p.Key.Namespace == key.Namespace:
				names = append(names, name)
			case name == key.Name:
				elsewhere = append(elsewhere, p.Key.Namespace+"/"+name)
			}
		}
	}
	slices.Sort(elsewhere)
	switch elsewhere = slices.Compact(elsewhere); {
	case len(elsewhere) > 0:
		return fmt.Errorf("no pod or workload %s, but there is %s", key, strings.Join(elsewhere[:min(3,
			len(elsewhere))], ", "))
	case len(names) == 0:
		return fmt.Errorf("no pod or workload %s: namespace %s has no pods", key, key.Namespace)
	}
	return fmt.Errorf("no pod or workload %s%s", key, nearest(key.Name, names))
}

// maxNear is how many names a message proposes.
const maxNear = 3

// nearest proposes known names, as the end of a message.
func nearest(name string, known []string) string {
	known = slices.Compact(slices.Sorted(slices.Values(known)))
	if len(known) == 0 {
		return "; there is none"
	}
	slices.SortStableFunc(known, func(a, b string) int {
		return cmp.Compare(spelling.Distance(name, a), spelling.Distance(name, b))
	})
	more := ""
	if len(known) > maxNear {
		more = fmt.Sprintf(" and %d more", len(known)-maxNear)
	}
	return "; there is " + strings.Join(known[:min(maxNear, len(known))], ", ") + more
}

func ofFamily(list []netip.Addr, v6 bool) netip.Addr {
	for _, a := range list {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// each returns the target once for each kind of its pods: pods of a workload may differ in
// labels and ports, as in a rollout.
func (t target) each() []target {
	if len(t.pods) < 2 {
		return []target{t}
	}
	var list []target
	for _, p := range t.pods {
		alike := func(o target) bool {
			return slices.Equal(o.pods[0].Labels, p.Labels) && slices.Equal(o.pods[0].NamedPorts(), p.NamedPorts())
		}
		if !slices.ContainsFunc(list, alike) {
			one := t
			one.pods = []*cluster.Pod{p}
			list = append(list, one)
		}
	}
	return list
}

// end returns the target's end of a family; ok is false if it has none.
func (t target) end(v6 bool) (explain.End, bool) {
	if len(t.pods) > 0 {
		a := ofFamily(t.pods[0].IPs, v6)
		return explain.End{Pod: t.pods[0].Key, Addr: a}, a.IsValid()
	}
	for _, e := range t.ends {
		if e.Addr.Is6() == v6 {
			return e, true
		}
	}
	return explain.End{}, false
}

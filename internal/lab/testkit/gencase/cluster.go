// SPDX-License-Identifier: Apache-2.0

package gencase

import (
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/lab/cases"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
)

const (
	v4 = "IPv4"
	v6 = "IPv6"
)

// Names that become one text when they are put together without a separator or
// with a dash: a/bc and ab/c, a/b-c and a-b/c.
func namespaceNames() []string { return []string{"a", "ab", "a-b", "b"} }
func objectNames() []string    { return []string{"bc", "c", "b-c", "p", "q", "r"} }

func nodes() []string { return []string{"node1", "node2"} }

// nodeAddrs are the addresses that a bed of package lab gives to its nodes, in
// the order of nodes.
func nodeAddrs(node int) []netip.Addr {
	last := byte(11 + node)
	return []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, last}),
		netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x01, 3: 0x72, 5: 0x30, 15: 0x11 + byte(node)})}
}

// podAddrs returns the n-th pair of addresses. They lie in two subnets, which
// nodes share; the first address of each belongs to the nodes.
func podAddrs(n int) []netip.Addr {
	subnet, last := byte(n%2), byte(2+n/2)
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, subnet, last}),
		netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x10, 7: subnet, 15: last})}
}

// pairs is how many pairs of addresses there are for pods.
const pairs = 14

// outside are the hosts that are no pods: two neighbours, and one in the range
// that pods have theirs from.
func outside() []cases.External {
	host := func(name, a, b string) cases.External {
		return cases.External{Name: name, IP: netip.MustParseAddr(a), OtherIPs: []netip.Addr{netip.MustParseAddr(b)}}
	}
	return []cases.External{
		host("outside-6", "198.51.100.6", "2001:db8::6"),
		host("outside-7", "198.51.100.7", "2001:db8::7"),
		host("outside-in-pod-range", "10.0.0.200", "fd10::c8"),
	}
}

func (w *world) externals() []cases.External {
	var list []cases.External
	for _, e := range outside() {
		a := w.of(e.Addrs())
		list = append(list, cases.External{Name: e.Name, IP: a[0], OtherIPs: a[1:]})
	}
	return list
}

// of returns the addresses of the families that the cluster has.
func (w *world) of(list []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool {
		return !slices.Contains(w.families,
			family(a))
	})
}

func family(a netip.Addr) string {
	if a.Is4() {
		return v4
	}
	return v6
}

func has(list []netip.Addr, fam string) bool {
	return slices.ContainsFunc(list, func(a netip.Addr) bool { return family(a) == fam })
}

func newWorld(t *rapid.T) *world {
	w := &world{families: pick(t, "families", []string{v4}, []string{v6}, []string{v4, v6}, []string{v4}, []string{v6})}
	for i, name := range namespaceNames() {
		if i < 2 || rarely(t, "one more namespace", 3) {
			w.namespaces = append(w.namespaces, namespace(t, name))
		}
	}
	for range rapid.IntRange(4, 8).Draw(t, "pods") {
		w.addPod(t)
	}
	for i, node := range nodes() { // so that every step has both nodes and can ask for them
		a := w.of(nodeAddrs(i))
		w.pods = append(w.pods, cases.Pod{Namespace: "a", Name: "host-" + node, Node: node, IP: a[0], OtherIPs: a[1:],
			HostNetwork: true, Labels: gen.Labels(t), Ports: containerPorts(t)})
	}
	for range rapid.IntRange(2, 6).Draw(t, "policies") {
		w.setPolicy(t)
	}
	return w
}

func namespace(t *rapid.T, name string) cases.Namespace {
	m := gen.Labels(t)
	m["kubernetes.io/metadata.name"] = name
	return cases.Namespace{Name: name, Labels: m}
}

// addPod adds a pod, or replaces the one of the same name: mostly a usual one,
// sometimes one that has finished, is being deleted, or has no address yet.
func (w *world) addPod(t *rapid.T) {
	p := cases.Pod{Namespace: w.namespace(t), Name: pick(t, "pod", objectNames()...), Node: pick(t, "node", nodes()...),
		Labels: gen.Labels(t), Ports: containerPorts(t)}
	w.pods = slices.DeleteFunc(w.pods, func(o cases.Pod) bool { return o.Key() == p.Key() })
	free := w.freeAddrs(t)
	switch pick(t, "kind of pod", "usual", "usual", "usual", "usual", "usual", "usual", "terminating", "finished",
		"without address") {
	case "terminating":
		p.Terminating = true
	case "finished": // somebody else may have its address
		p.Phase = pick(t, "phase", "Succeeded", "Failed")
		free = w.of(podAddrs(rapid.IntRange(0, pairs-1).Draw(t, "former address")))
	case "without address":
		free = nil
	}
	if len(free) > 0 {
		p.IP, p.OtherIPs = free[0], free[1:]
	}
	w.pods = append(w.pods, p)
}

func (w *world) namespace(t *rapid.T) string {
	return w.namespaces[rapid.IntRange(0, len(w.namespaces)-1).Draw(t, "namespace")].Name
}

// freeAddrs returns addresses that no running pod has: one for each family; in
// a cluster of both, sometimes in the other order or only one.
func (w *world) freeAddrs(t *rapid.T) []netip.Addr {
	n := rapid.IntRange(0, pairs-1).Draw(t, "address")
	for w.taken(podAddrs(n)) {
		n = (n + 1) % pairs
	}
	list := w.of(podAddrs(n))
	if len(list) == 2 {
		list = pick(t, "addresses", list, list, list, []netip.Addr{list[1], list[0]}, list[:1], list[1:])
	}
	return list
}

// taken never finds all pairs taken: there are at most 12 pods with addresses
// of their own.
func (w *world) taken(pair []netip.Addr) bool {
	return slices.ContainsFunc(w.pods, func(p cases.Pod) bool {
		return p.Phase == "" && slices.ContainsFunc(p.Addrs(), func(a netip.Addr) bool {
			return slices.Contains(pair,
				a)
		})
	})
}

// containerPorts returns ports with names, some of them twice and with other
// numbers on other pods, and now and then one without.
func containerPorts(t *rapid.T) []cases.ContainerPort {
	var list []cases.ContainerPort
	for range rapid.IntRange(0, 4).Draw(t, "container ports") {
		list = append(list, cases.ContainerPort{
			Name:     pick(t, "port name", "http", "http", "dns", "dns", ""),
			Port:     uint16(pick(t, "port number", portNumbers()...)),
			Protocol: pick(t, "port protocol", protocols()...),
		})
	}
	return list
}

func portNumbers() []int  { return []int{53, 79, 80, 81, 443, 8080} }
func protocols() []string { return []string{"TCP", "UDP", "SCTP"} }

// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/program"
)

// node collects the facts that the rules need about the node. all are the wanted pods, including
// those that are not programmed yet: their interfaces are closed like those of the others.
func (d *Decider) node(all *program.Program, w Wiring, out *Decision) {
	n := &out.Node
	before := natBefore(w)
	n.FilterHook = d.options.FilterHook || d.Forced || len(before) > 0
	if d.Records() {
		n.DeniedGroup = d.options.DeniedGroup
	} else if d.Unrecorded != "" {
		out.Problems = append(out.Problems, unrecordedProblem(d.Unrecorded))
	}
	var guard bool
	guard, out.GuardWhy = d.guard(all, w.Others)
	n.NoGuard = !guard
	out.Filter, out.Guard = n.FilterHook, guard && !n.FilterHook
	if n.FilterHook {
		out.GuardWhy = "not needed: filter chains see every packet"
	}
	if len(before) > 0 && !d.options.FilterHook {
		out.Problems = append(out.Problems, Problem{Subject: "nat chain before ours", Blocking: true,
			Text: strings.Join(before, ", ") +
				" runs before podwall's and could end the walk; judging in filter chains instead",
			Cure: "give that chain a priority above -190, or run with --datapath=filter"})
	}
	if chains := w.Others.KubeRouter; len(chains) > 0 {
		out.Problems = append(out.Problems, Problem{Subject: "kube-router",
			Text: fmt.Sprintf("%d chains of kube-router's firewall are in the kernel and judge packets too; "+
				"if it has stopped, by the policies of that time: %s", len(chains), FirstOf(slices.Clone(chains))),
			Cure: "stop kube-router on this node, then run podwall-agent --remove-kube-router-firewall=plan, " +
				"and =now; see docs/migrate-from-kube-router.md"})
	}
	if err := w.Others.LegacyUnread; err != nil {
		out.Problems = append(out.Problems, Problem{Subject: "iptables-legacy",
			Text: "whether rules of kube-router judge packets too is not known: " + err.Error(),
			Cure: "run the agent as root with CAP_NET_ADMIN, in the node's network namespace"})
	}
	for _, b := range out.Bridges {
		out.Problems = append(out.Problems, bridgeProblems(b, w.NodePorts[b.Index])...)
	}
	otherPorts(out.Bridges, w, n)
	d.wiring(out.Program, w, n)
	n.Ported = append(attached(all, w), d.extraHardware(all, w, out)...)
	isolatedLinks(all, w, n)
}

// unrecordedProblem has another subject than the agent's problem of the records' receiver: both
// may exist.
func unrecordedProblem(why string) Problem {
	return Problem{Subject: "records of denied flows",
		Text: "denied flows are not recorded: the kernel refuses the rules for it: " + why,
		Cure: "use a kernel with CONFIG_NFT_LOG, CONFIG_NFT_LIMIT and CONFIG_NETFILTER_NETLINK_LOG, or leave " +
			"--denied-flows-group out; it is tried again at each verification, and policies are enforced all the same"}
}

// natBefore returns the nat chains of other programs that run before ours. Ours is at prerouting
// only on a node with a bridge.
func natBefore(w Wiring) []string {
	if !w.AnyBridge && len(w.RememberedBridges) == 0 {
		return w.Others.NATBefore
	}
	return slices.Concat(w.Others.NATBefore, w.Others.NATBeforeRouting)
}

// guard decides whether the guard is on. The guard is also the only check of ICMP errors for
// isolated pods.
func (d *Decider) guard(all *program.Program, o Others) (on bool, why string) {
	isolated := slices.ContainsFunc(all.Pods, func(p program.Pod) bool { return p.Egress != "" })
	switch {
	case d.options.Guard == GuardOn:
		return true, "--invalid-guard=on"
	case d.options.Guard == GuardOff:
		return false, "--invalid-guard=off"
	case o.DropsInvalid && isolated:
		return true, "auto: a pod is isolated for egress, and its ICMP errors are judged at forward"
	case o.DropsInvalid:
		return false, "auto: another table drops invalid packets at forward, and no pod is isolated for egress"
	}
	return true, "auto: no other table is seen to drop invalid packets at forward"
}

// attached returns the interfaces of the pods, as far as they are known; see unreached.
func attached(p *program.Program, w Wiring) (list []program.Attachment) {
	for _, pod := range p.Pods {
		if path, ok := w.Paths[pod.Addr]; ok {
			list = append(list, attachment(pod.Addr, path))
		}
	}
	return list
}

func attachment(a netip.Addr, path inet.Path) program.Attachment {
	return program.Attachment{Link: path.Link, Addr: a, Port: path.Port, PortIndex: path.PortIndex,
		Hardware: path.Hardware}
}

// wiring fills in the interfaces of the pods.
func (d *Decider) wiring(p *program.Program, w Wiring, n *program.Node) {
	for _, at := range attached(p, w) {
		if !w.Paths[at.Addr].Uplink { // other machines may be behind it
			n.Attached = append(n.Attached, at)
		}
	}
	n.OpenUnknown, n.Open, n.ClosedBridges = d.options.OpenUnknown, w.Open, slices.Clone(w.RememberedBridges)
	n.Bridges = w.AnyBridge
	n.Owned = append(slices.Clone(w.Own), slices.SortedFunc(maps.Keys(w.Unclear), netip.Addr.Compare)...)
	if !n.OpenUnknown {
		for _, b := range w.Bridges {
			n.ClosedBridges = append(n.ClosedBridges, b.Link)
		}
	}
}

// otherPorts fills in the bridges of pods, and the bridge ports to which no pod's addresses are
// bound.
func otherPorts(bridges []inet.Path, w Wiring, n *program.Node) {
	ofPods := map[int]bool{}
	for _, b := range bridges {
		n.PodBridges = append(n.PodBridges, b.Link)
		n.OtherPorts = append(n.OtherPorts, w.NodePorts[b.Index]...)
		n.UplinkPorts = append(n.UplinkPorts, w.UplinkPorts[b.Index]...)
		ofPods[b.Index] = true
	}
	for bridge, ports := range w.Ports {
		if !ofPods[bridge] {
			n.OtherPorts = append(n.OtherPorts, ports...)
		}
	}
	slices.Sort(n.OtherPorts)
	slices.Sort(n.UplinkPorts)
}

// isolatedLinks fills in the interfaces that lead to isolated pods.
func isolatedLinks(p *program.Program, w Wiring, n *program.Node) {
	for _, pod := range p.Pods {
		path, ok := w.Paths[pod.Addr]
		if !ok || path.Uplink || path.Elsewhere {
			continue // other machines may be behind it
		}
		if pod.Ingress != "" {
			n.Ingress = append(n.Ingress, path.Link)
		}
		if pod.Egress != "" {
			n.Egress = append(n.Egress, path.Link)
		}
	}
}

// podBridges returns the bridges that must pass their packets to the IP hooks, sorted by name: the
// bridges of wanted pods, including those not programmed yet, and on a closed node all bridges that
// may get pods, because new pods are there before they are known.
func (d *Decider) podBridges(all *program.Program, w Wiring) []inet.Path {
	bridges := map[int]inet.Path{}
	for _, pod := range all.Pods {
		if path := w.Paths[pod.Addr]; path.Bridge {
			bridges[path.Index] = path
		}
	}
	if !d.options.OpenUnknown {
		for _, b := range w.Bridges {
			bridges[b.Index] = cmp.Or(bridges[b.Index], b)
		}
	}
	return slices.SortedFunc(maps.Values(bridges), func(a, b inet.Path) int { return cmp.Compare(a.Link, b.Link) })
}

// bridgeProblems returns what cannot be enforced on a bridge with this wiring.
func bridgeProblems(b inet.Path, nodePorts []string) (list []Problem) {
	if b.Uplink {
		list = append(list, Problem{Subject: "bridge " + b.Link,
			Text: "pods and an uplink share this bridge: addresses that belong to no pod are not closed on it"})
	}
	if len(nodePorts) > 0 {
		list = append(list, Problem{Subject: "node's port of " + b.Link,
			Text: "the node uses this bridge through a veth pair (" + strings.Join(nodePorts, ", ") +
				"): TCP between it and pods there may fail, " +
				"since packets cross connection tracking twice; a reset then counts as invalid and is dropped",
			Cure: "give the bridge itself the node's address"})
	}
	return list
}

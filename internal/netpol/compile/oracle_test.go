// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/oracle"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// end is one end of a flow as both witnesses see it.
type end struct {
	addr      netip.Addr
	node      string // whose own address this is
	at        string // the node of the pod that has it
	elsewhere bool   // not where pods are
	oracle    oracle.Endpoint
}

// ends returns the addresses that a question can be about: those of pods that
// own them, the nodes' own, and two outside. An address that several running
// pods claim is closed, and has a test of its own; so is one that a pod which
// is being deleted keeps on another node than its heir.
func ends(snap *cluster.Snapshot) []end {
	claimants := map[netip.Addr][]*cluster.Pod{}
	for _, p := range snap.Pods {
		if p.Networked() {
			for _, a := range p.IPs {
				claimants[a] = append(claimants[a], p)
			}
		}
	}
	var list []end
	for _, a := range slices.SortedFunc(maps.Keys(claimants), netip.Addr.Compare) {
		if p := soleOwner(claimants[a]); p != nil && p.Node != "" {
			list = append(list, end{addr: a, at: p.Node, oracle: oracle.Endpoint{Pod: p.Key, Addr: a}})
		}
	}
	for _, node := range gen.Nodes() {
		for _, v4 := range []bool{true, false} {
			a := gen.NodeAddr(node, v4)
			list = append(list, end{addr: a, node: node, oracle: oracle.Node(node, a)})
		}
	}
	for _, text := range []string{"198.51.100.7", "2001:db8::7"} {
		a := netip.MustParseAddr(text)
		list = append(list, end{addr: a, oracle: oracle.Addr(a)})
	}
	return list
}

// linkLocalEnds are somebody where pods are, the node, and somebody outside, all by
// link-local addresses.
func linkLocalEnds() (list []end) {
	for _, text := range []string{"169.254.7.7", "169.254.169.254", "fe80::7", "fe80::1:7"} {
		a := netip.MustParseAddr(text)
		list = append(list, end{addr: a, oracle: oracle.Addr(a)}, end{addr: a, node: "one",
			oracle: oracle.Node("one", a)},
			end{addr: a, elsewhere: true, oracle: oracle.Outside(a)})
	}
	return list
}

// possible reports whether one end can speak from there to the other: what is
// link-local in IPv6 is never forwarded.
func possible(one, other end) bool {
	if !one.addr.Is6() || !one.addr.IsLinkLocalUnicast() {
		return true
	}
	return !one.elsewhere && (one.node == "" || other.at == "" || one.node == other.at)
}

// soleOwner returns the pod that stays, if it is the only one, and the others
// are on its node.
func soleOwner(claimants []*cluster.Pod) *cluster.Pod {
	var owner *cluster.Pod
	for _, p := range claimants {
		switch {
		case p.Node != claimants[0].Node:
			return nil
		case p.Terminating && len(claimants) > 1:
		case owner != nil:
			return nil
		default:
			owner = p
		}
	}
	return owner
}

// probes are the protocols and ports that are asked about: those of the
// generator's policies and pods, their neighbours, and ICMP.
func probes() []program.Flow {
	var list []program.Flow
	for _, p := range cluster.Protocols {
		for _, port := range []uint16{1, 53, 54, 79, 80, 81, 85, 443, 8080, 65535} {
			list = append(list, program.Flow{Protocol: inet.Protocol(p), DstPort: port})
		}
	}
	return append(list, program.Flow{Protocol: 1})
}

// programs compiles the cluster for every node.
func programs(snap *cluster.Snapshot) map[string]*program.Program {
	list := map[string]*program.Program{}
	for _, node := range gen.Nodes() {
		list[node] = compile.Program(policy.Resolve(snap, node), compile.Options{})
	}
	return list
}

// judge asks both nodes: a flow is allowed if every node that sees it lets it
// pass. A node that is neither end's answers for addresses that are not its
// pods', and must accept.
func judge(list map[string]*program.Program, f program.Flow, src, dst end) bool {
	f.Src, f.Dst = src.addr, dst.addr
	for node, p := range list {
		f.FromNode, f.ToNode = src.node == node, dst.node == node
		f.SrcElsewhere = src.elsewhere || src.node != "" && !f.FromNode
		f.DstElsewhere = dst.elsewhere || dst.node != "" && !f.ToNode
		if program.Eval(p, f) != program.Accept {
			return false
		}
	}
	return true
}

// The first two witnesses agree: the API's text read plainly, and the compiled
// programs of both nodes.
func TestProgramsAgreeWithTheOracle(t *testing.T) {
	byRule, denied := 0, 0
	ok := checkUntil(t, func() bool { return byRule >= 1000 && denied >= 1000 }, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		list := programs(snap)
		all := append(ends(snap), linkLocalEnds()...)
		for _, src := range all {
			for _, dst := range all {
				if src.addr.Is4() != dst.addr.Is4() || src.addr == dst.addr || !possible(src, dst) ||
					!possible(dst, src) {
					continue
				}
				for _, f := range probes() {
					want := oracle.Judge(snap, oracle.Flow{Protocol: cluster.Protocol(f.Protocol), Src: src.oracle,
						Dst: dst.oracle, Port: f.DstPort})
					got := judge(list, f, src, dst)
					if got != want.Allowed {
						t.Fatalf("%s %d from %s to %s: programs allow: %t, oracle: %s\n%s%s", f.Protocol, f.DstPort,
							src.addr, dst.addr, got, want, gen.Describe(snap), describe(list))
					}
					switch {
					case !want.Allowed:
						denied++
					case want.Ingress.Cause == oracle.Rule || want.Egress.Cause == oracle.Rule:
						byRule++
					}
				}
			}
		}
	})
	if !ok {
		t.Errorf("%d flows allowed by a rule and %d denied: the clusters are too dull to show anything", byRule, denied)
	}
	t.Logf("%d flows allowed by a rule, %d denied", byRule, denied)
}

func describe(list map[string]*program.Program) string {
	text := ""
	for _, node := range gen.Nodes() {
		text += fmt.Sprintf("program of %s:\n%s", node, list[node])
	}
	return text
}

// A pod reaches itself, whatever policies say.
func TestAPodReachesItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		for node, p := range programs(snap) {
			for _, pod := range p.Pods {
				f := program.Flow{Protocol: inet.TCP, Src: pod.Addr, Dst: pod.Addr, DstPort: 80}
				if program.Eval(p, f) != program.Accept {
					t.Fatalf("node %s: %s does not reach itself", node, pod.Name)
				}
			}
		}
	})
}

// An option never opens a family: with a family closed, what is allowed in it
// is allowed without the option too, and isolated pods get nothing.
func TestClosedFamiliesOnlyTakeAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		model := policy.Resolve(snap, "one")
		open := compile.Program(model, compile.Options{})
		closed := compile.Program(model, compile.Options{ClosedIPv4: true, ClosedIPv6: true})
		for _, src := range ends(snap) {
			for _, dst := range ends(snap) {
				if src.addr.Is4() != dst.addr.Is4() || src.addr == dst.addr {
					continue
				}
				for _, f := range probes() {
					f.Src, f.Dst = src.addr, dst.addr
					f.FromNode, f.ToNode = src.node == "one", dst.node == "one"
					got := program.Eval(closed, f)
					if got == program.Accept && program.Eval(open, f) != program.Accept {
						t.Fatalf("closing the families opened %+v", f)
					}
					if got == program.Accept && !f.FromNode && !f.ToNode &&
						isolated(closed, dst.addr, program.Ingress) {
						t.Fatalf("an isolated pod gets %+v in a closed family", f)
					}
				}
			}
		}
	})
}

func isolated(p *program.Program, a netip.Addr, d program.Direction) bool {
	for _, pod := range p.Pods {
		if pod.Addr == a {
			return d == program.Ingress && pod.Ingress != "" || d == program.Egress && pod.Egress != ""
		}
	}
	return false
}

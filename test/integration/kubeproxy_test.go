// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/probe"
)

// call is a way to the Services' one pod, default/server on node1, and what
// the policies of that pod must make of it.
type call struct {
	from string
	at   string // the node whose port is called; empty: the Service's own address
	svc  service
	// seen is whom node1 sees as the source when it judges, written by hand:
	// kube-proxy masquerades after the judgement, so another source is seen only
	// where another node has done so before.
	seen string
	// hidden calls reach the pod with an address of node1 as the source: node1
	// masquerades them, after it judged.
	hidden bool
}

const server = "default/server"

func calls() []call {
	const (
		near, nearby = "default/near", "default/nearby" // on node1
		far, farther = "default/far", "default/farther" // on node2
	)
	some, here := anywhere(), onlyHere()
	return []call{
		{near, "", some, near, false},
		{nearby, "", some, nearby, false},
		{far, "", some, far, false},
		{farther, "", some, farther, false},
		{far, "", here, far, false},
		{server, "", some, server, true}, // hairpin
		{server, "node1", some, server, true},

		{"client", "node1", some, "client", true},
		{"client", "node1", here, "client", false},
		{"client", "node2", some, "node2", false},

		{near, "node1", some, near, true},
		{nearby, "node1", here, nearby, false},
		{near, "node2", some, "node2", false},
		{far, "node1", some, far, true},
		{far, "node1", here, far, false},
		{far, "node2", some, "node2", false},
		{far, "node2", here, far, false}, // for a pod it is as the Service's own address

		{"node1", "node1", some, "node1", true},
		{"node2", "node1", some, "node2", true},
	}
}

// always are the sources that no policy of the pod keeps out: itself, and its
// node, as whom a kubelet probes.
func always() []string { return []string{server, "node1"} }

func TestPoliciesHoldBesideTheRealKubeProxy(t *testing.T) {
	kubeProxyProgram(t) // skips before anything is built
	for _, wiring := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(wiring), func(t *testing.T) {
			w := newWorld(t, wiring, "node1", "node2")
			asked := w.populateForServices(wiring)
			first := w.agent("node1").ready() // the other one comes after kube-proxy
			var second *agent
			for _, mode := range []string{"iptables", "nftables"} {
				proxies := []*agent{w.kubeProxy("node1", mode), w.kubeProxy("node2", mode)}
				if second == nil {
					second = w.agent("node2").ready()
				}
				guard := map[string]string{"iptables": "off", "nftables": "on"}[mode]
				for _, a := range []*agent{first, second} {
					a.await("guard "+guard, func() bool { return a.status().Datapath.Guard == guard })
				}
				w.judgeServices(mode, first, asked)
				for _, p := range proxies {
					p.Kill() // its rules stay; the next one takes them away
				}
			}
			for _, a := range []*agent{first, second} {
				s := a.status()
				if !s.Ready || s.DriftRepairs != 0 || len(s.Problems) > 0 || len(s.Diagnostics) > 0 {
					t.Errorf("%s: status at the end is %+v, want ready and nothing else to say", a.name, s)
				}
			}
		})
	}
}

// populateForServices makes the cluster of the calls, and asks for them.
func (w *world) populateForServices(wiring lab.Wiring) map[flow]call {
	w.t.Helper()
	w.createNamespace("default")
	w.pod(server, "node1", addrs("10.244.1.5", "fd00:244:1::5"), "app=server")
	w.pod("default/near", "node1", addrs("10.244.1.6", "fd00:244:1::6"), "app=friend")
	w.pod("default/nearby", "node1", addrs("10.244.1.7", "fd00:244:1::7"))
	w.pod("default/far", "node2", addrs("10.244.2.5", "fd00:244:2::5"), "app=friend")
	w.pod("default/farther", "node2", addrs("10.244.2.6", "fd00:244:2::6"))
	w.host("client", "93.184.216.34", "2001:db8:cafe::1")
	if wiring == lab.Bridge {
		w.hairpin(server)
	}
	w.createService(anywhere(), server)
	w.createService(onlyHere(), server)
	return w.askServices()
}

// hairpin lets a bridge send a packet back to the pod that sent it, as network
// plugins are told to for pods that use their own Services.
func (w *world) hairpin(pod string) {
	w.t.Helper()
	e := w.bed.Pod(key(pod))
	h, err := netlink.NewHandleAt(vnetns.NsHandle(w.bed.Node(e.Node).NS.FD()), unix.NETLINK_ROUTE)
	if err != nil {
		w.t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName(e.HostDevice)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := h.LinkSetHairpin(link, true); err != nil {
		w.t.Fatal(err)
	}
}

// askServices makes the rounds ask for every call, in both families and by
// both protocols.
func (w *world) askServices() map[flow]call {
	w.t.Helper()
	byName := map[string]*lab.Endpoint{}
	for _, e := range w.bed.Endpoints() {
		byName[e.Name] = e
	}
	asked := map[flow]call{}
	w.flows, w.mixed = nil, true
	for _, c := range calls() {
		fronts := c.svc.addrs
		if c.at != "" {
			fronts = byName[c.at].Addrs
		}
		for _, dst := range fronts {
			for _, p := range c.svc.ports {
				f := flow{byName[c.from], byName[server], dst, p.proto, p.front}
				if c.at != "" {
					f.port = p.onNode
				}
				w.flows = append(w.flows, f)
				asked[f] = c
			}
		}
	}
	w.look = func(f flow, a probe.Arrival) { w.arrivedAsJudged(f, a, asked[f], byName[asked[f].seen]) }
	return asked
}

// arrivedAsJudged wants a packet at the pod's own port, and with the source
// that was judged, unless it was hidden after that. Which of its addresses
// node1 hides a call behind is its own affair.
func (w *world) arrivedAsJudged(f flow, a probe.Arrival, c call, seen *lab.Endpoint) {
	w.t.Helper()
	for _, p := range c.svc.ports {
		if p.proto == f.proto && (a.Dst.Port() != p.atPod || !slices.Contains(f.to.Addrs, a.Dst.Addr())) {
			w.t.Errorf("%s: arrived for %s, want port %d of the pod", f, a.Dst, p.atPod)
		}
	}
	byNode1 := slices.Contains(w.bed.Node("node1").Addrs, a.Src.Addr()) || gateway(a.Src.Addr())
	if c.hidden && !byNode1 || !c.hidden && !slices.Contains(seen.Addrs, a.Src.Addr()) {
		w.t.Errorf("%s: arrived from %s, judged as from %s, want it hidden: %v", f, a.Src.Addr(), c.seen, c.hidden)
	}
}

// gateway reports whether an address is that of node1 on its bridge.
func gateway(a netip.Addr) bool {
	return slices.Contains(addrs("10.244.1.1", "fd00:244:1::1"), a)
}

// judgeServices changes one policy step by step, first of the pod that is
// called and then of two that call.
func (w *world) judgeServices(mode string, judge *agent, asked map[flow]call) {
	w.t.Helper()
	w.becomes(mode+": without a policy", everything)
	w.forgetConnections()
	for _, steps := range [][]step{ingressSteps(), egressSteps()} {
		for i, s := range steps {
			p := w.parsePolicy([]byte(fmt.Sprintf(policyFrame, s.policy)))
			if i > 0 {
				w.editPolicy("default/services", func(old *networkingv1.NetworkPolicySpec) { *old = p.Spec })
			} else {
				w.createPolicy(p)
				judge.await("isolated pod", func() bool { return judge.status().IsolatedPods == 1 })
			}
			w.becomes(mode+": "+s.what, func(f flow) bool { return s.open(asked[f]) })
		}
		w.deletePolicy(w.parsePolicy([]byte(fmt.Sprintf(policyFrame, "{}"))))
		w.becomes(mode+": the policy is deleted", everything)
	}
}

// forgetConnections empties the nodes' connection tables. kube-proxy
// masquerades with source ports that it picks at random: without this, a call
// that is to be denied can meet the port of one that was allowed, and pass as
// that. The first policy must be in force before the next call, for the same
// reason.
func (w *world) forgetConnections() {
	w.t.Helper()
	for name := range w.tables {
		h, err := netlink.NewHandleAt(vnetns.NsHandle(w.bed.Node(name).NS.FD()), unix.NETLINK_NETFILTER)
		if err != nil {
			w.t.Fatal(err)
		}
		err = h.ConntrackTableFlush(netlink.ConntrackTable)
		h.Close()
		if err != nil {
			w.t.Fatalf("emptying the connection table of %s: %v", name, err)
		}
	}
}

const policyFrame = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: services, namespace: default}
spec: %s
`

// step is a policy, and by hand which calls it leaves open.
type step struct {
	what, policy string
	open         func(call) bool
}

// from opens what is seen to come from somebody.
func from(names ...string) func(call) bool {
	return func(c call) bool { return slices.Contains(append(always(), names...), c.seen) }
}

const (
	portsOfPod     = `ports: [{port: 8080}, {port: 5353, protocol: UDP}]`
	portsOfService = `ports: [{port: 80}, {port: 53, protocol: UDP}]`
)

func ingressSteps() []step {
	const (
		atServer = `{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], ingress: `
		friends  = `[{from: [{podSelector: {matchLabels: {app: friend}}}], `
	)
	return []step{
		{"friends at the pod's port", atServer + friends + portsOfPod + `}]}`, from("default/near", "default/far")},
		{"friends at the Service's port", atServer + friends + portsOfService + `}]}`, from()},
		{"friends at the pod's port again", atServer + friends + portsOfPod + `}]}`, from("default/near", "default/far")},
		{"nothing, in and out", `{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress, Egress]}`, from()},
		{"the client's addresses", atServer + `[{from: [{ipBlock: {cidr: 93.184.216.34/32}}, {ipBlock: {cidr: "2001:db8:cafe::1/128"}}]}]}`, from("client")},
		{"the other node's addresses", atServer + `[{from: [{ipBlock: {cidr: 172.30.0.12/32}}, {ipBlock: {cidr: "fd00:172:30::12/128"}}]}]}`, from("node2")},
	}
}

// egressSteps let the friends call the pod only. A port of another node is
// none of the pod's to them: that node will resolve it.
func egressSteps() []step {
	const toServer = `{podSelector: {matchLabels: {app: friend}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: server}}}], `
	home := map[string]string{"default/near": "node1", "default/far": "node2"}
	return []step{
		{"friends may call the pod's port", toServer + portsOfPod + `}]}`, func(c call) bool {
			own, friend := home[c.from]
			return !friend || c.at == "" || c.at == own
		}},
		{"friends may call the Service's port", toServer + portsOfService + `}]}`, func(c call) bool {
			_, friend := home[c.from]
			return !friend
		}},
	}
}

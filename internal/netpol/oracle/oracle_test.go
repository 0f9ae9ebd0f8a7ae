// SPDX-License-Identifier: Apache-2.0

package oracle_test

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
	. "github.com/podwall/podwall/internal/netpol/oracle"
)

const icmp = cluster.Protocol(1)

func sel(t *testing.T, text string) cluster.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.NewSelector(s)
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func port(first, last uint16) cluster.Port {
	return cluster.Port{Protocol: cluster.TCP, First: first, Last: last}
}

func block(cidr string, except ...string) cluster.Peer {
	b := &cluster.IPBlock{CIDR: netip.MustParsePrefix(cidr)}
	for _, e := range except {
		b.Except = append(b.Except, netip.MustParsePrefix(e))
	}
	return cluster.Peer{Block: b}
}

// world is a cluster with one pod of every sort. Tests add policies.
func world(t *testing.T, policies ...*cluster.Policy) *cluster.Snapshot {
	t.Helper()
	pod := func(ns, name, node string, ips ...string) *cluster.Pod {
		p := &cluster.Pod{Key: cluster.Key{Namespace: ns, Name: name}, Node: node,
			Labels: cluster.NewLabels(map[string]string{"app": name})}
		for _, ip := range ips {
			p.IPs = append(p.IPs, addr(ip))
		}
		return p
	}
	web := pod("shop", "web", "n1", "10.0.1.1", "2001:db8:1::1")
	web.Declared = &cluster.Declared{Ports: []cluster.NamedPort{
		{Name: "http", Protocol: cluster.TCP, Port: 80}, {Name: "http", Protocol: cluster.TCP, Port: 8080},
		{Name: "http", Protocol: cluster.SCTP, Port: 90},
	}}
	db := pod("shop", "db", "n1", "10.0.1.2", "2001:db8:1::2")
	host := pod("shop", "host", "n2", "192.168.0.2")
	host.HostNetwork = true
	done := pod("shop", "done", "n2", "10.0.2.9")
	done.Finished = true
	leaving := pod("shop", "leaving", "n2", "10.0.2.8")
	leaving.Terminating = true
	return &cluster.Snapshot{
		Namespaces: []*cluster.Namespace{
			{Name: "shop", Labels: cluster.NewLabels(map[string]string{"team": "a"})},
			{Name: "other", Labels: cluster.NewLabels(map[string]string{"team": "b"})},
		},
		Pods: []*cluster.Pod{web, db, host, done, leaving, pod("shop", "waiting", "n2"),
			pod("other", "web", "n2", "10.0.2.1"), pod("other", "heir", "n2", "10.0.2.9"),
			pod("unseen", "web", "n2", "10.0.2.3")},
		Policies: policies,
	}
}

// closed isolates every pod of shop in both directions.
func closed() *cluster.Policy {
	return &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: "closed"},
		Subject: cluster.Everything(), IsolatesIngress: true, IsolatesEgress: true}
}

// allows is a policy with one rule for each direction it is given for.
func allows(dir Direction, r cluster.Rule) *cluster.Policy {
	p := &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: "allows"}, Subject: cluster.Everything()}
	if dir == Ingress {
		p.IsolatesIngress, p.Ingress = true, []cluster.Rule{r}
	} else {
		p.IsolatesEgress, p.Egress = true, []cluster.Rule{r}
	}
	return p
}

func peers(list ...cluster.Peer) cluster.Rule {
	return cluster.Rule{Peers: cluster.Peers{List: list}, Ports: cluster.Ports{Any: true}}
}

func ports(list ...cluster.Port) cluster.Rule {
	return cluster.Rule{Peers: cluster.Peers{Any: true}, Ports: cluster.Ports{List: list}}
}

var (
	web, db    = Pod("shop", "web"), Pod("shop", "db")
	host, done = Pod("shop", "host"), Pod("shop", "done")
	leaving    = Pod("shop", "leaving")
	otherWeb   = Pod("other", "web")
	heir       = Pod("other", "heir")
	outside    = Addr(addr("203.0.113.9"))
	node1      = Node("n1", addr("192.168.0.1"))
	node2      = Node("n2", addr("192.168.0.2"))
)

func tcp(src, dst Endpoint, port uint16) Flow {
	return Flow{Protocol: cluster.TCP, Src: src, Dst: dst, Port: port}
}

func TestWhoIsJudged(t *testing.T) {
	everything := cluster.Everything()
	anyPod := cluster.Peer{Namespaces: &everything, Pods: everything}
	tests := []struct {
		name   string
		policy *cluster.Policy
		flow   Flow
		want   bool
	}{
		{"a pod to itself is always allowed", closed(), tcp(web, web, 80), true},
		{"also from its one family to the other", closed(),
			tcp(Addr(addr("10.0.1.1")), Addr(addr("2001:db8:1::1")), 80), true},
		{"the node to its own pod is always allowed", closed(), tcp(node1, web, 80), true},
		{"another node is not exempt", closed(), tcp(node2, web, 80), false},
		{"a host-network pod of the own node counts as the node", closed(), tcp(host, leaving, 80), true},
		{"a pod to its own node is policed", closed(), tcp(web, node1, 10250), false},
		{"a pod to its own node is allowed by its address", allows(Egress, peers(block("192.168.0.1/32"))),
			tcp(web, node1, 10250), true},
		{"a node is no pod peer", allows(Ingress, peers(anyPod)), tcp(node2, web, 80), false},
		{"a host-network pod is no pod peer", allows(Ingress, peers(anyPod)), tcp(host, web, 80), false},
		{"a host-network pod is met by an ipBlock", allows(Ingress, peers(block("192.168.0.2/32"))), tcp(host, web, 80),
			true},
		{"a host-network pod is no subject", closed(), tcp(otherWeb, host, 80), true},
		{"the policy of another namespace says nothing", closed(), tcp(otherWeb, heir, 80), true},
		{"a terminating pod is a subject", closed(), tcp(otherWeb, leaving, 80), false},
		{"a terminating pod is a peer", allows(Ingress, peers(cluster.Peer{Pods: everything})), tcp(leaving, web, 80),
			true},
		{"a finished pod lends its labels to nobody", allows(Ingress, peers(cluster.Peer{Pods: sel(t, "app=done")})),
			tcp(heir, web, 80), false},
		{"the address of a finished pod is its heir's", closed(), tcp(otherWeb, Addr(addr("10.0.2.9")), 80), true},
		{"a finished pod has no flows", allows(Egress, cluster.Rule{}), tcp(otherWeb, done, 80), false},
		{"a pod without an address has no flows", allows(Egress, cluster.Rule{}),
			tcp(otherWeb, Pod("shop", "waiting"), 80), false},
		{"a pod whose namespace is not known is selected by no namespaceSelector", allows(Ingress, peers(anyPod)),
			tcp(Pod("unseen", "web"), web, 80), false},
		{"the same labels in another namespace are another pod", allows(Ingress,
			peers(cluster.Peer{Pods: sel(t, "app=web")})), tcp(otherWeb, db, 80), false},
		{"an ipBlock meets pods by their address", allows(Ingress, peers(block("10.0.2.0/24"))), tcp(otherWeb, web, 80),
			true},
		{"a wide block means no link-local address of a pod", allows(Ingress, peers(block("::/0"))),
			tcp(Addr(addr("fe80::7")), web, 80), false},
		{"an except does not change that", allows(Ingress, peers(block("0.0.0.0/0", "10.0.0.0/8"))),
			tcp(Addr(addr("169.254.7.7")), web, 80), false},
		{"nor the direction", allows(Egress, peers(block("128.0.0.0/1"))), tcp(web, Addr(addr("169.254.7.7")), 80),
			false},
		{"a block of link-local addresses means them", allows(Ingress, peers(block("fe80::/10"))),
			tcp(Addr(addr("fe80::7")), web, 80), true},
		{"also a part of them", allows(Egress, peers(block("169.254.7.0/24"))), tcp(web, Addr(addr("169.254.7.7")), 80),
			true},
		{"a link-local address outside is in a wide block", allows(Egress, peers(block("0.0.0.0/0"))),
			tcp(web, Outside(addr("169.254.169.254")), 80), true},
		{"one of the node too", allows(Egress, peers(block("0.0.0.0/0"))), tcp(web, Node("n1", addr("169.254.20.10")),
			80), true},
		{"an ipBlock judges the family that is used", allows(Ingress, peers(block("10.0.0.0/8"))),
			tcp(Addr(addr("2001:db8:1::2")), Addr(addr("2001:db8:1::1")), 80), false},
		{"an IPv4 address written as IPv6 is IPv4", allows(Ingress, peers(block("203.0.113.0/24"))),
			tcp(Addr(addr("::ffff:203.0.113.9")), web, 80), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Judge(world(t, tt.policy), tt.flow); got.Allowed != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestWhatRulesAllow(t *testing.T) {
	everything, teamB := cluster.Everything(), sel(t, "team=b")
	named := func(p cluster.Protocol) cluster.Port { return cluster.Port{Protocol: p, Name: "http"} }
	sctp := func(dst Endpoint, port uint16) Flow {
		return Flow{Protocol: cluster.SCTP, Src: outside, Dst: dst, Port: port}
	}
	tests := []struct {
		name string
		dir  Direction
		rule cluster.Rule
		flow Flow
		want bool
	}{
		{"no peers understood is not every peer", Ingress, cluster.Rule{Ports: cluster.Ports{Any: true}},
			tcp(outside, web, 80), false},
		{"no ports understood is not every port", Ingress, cluster.Rule{Peers: cluster.Peers{Any: true}},
			tcp(outside, web, 80), false},
		{"a zero selector selects nobody", Ingress, peers(cluster.Peer{}), tcp(db, web, 80), false},
		{"both selectors must match", Ingress, peers(cluster.Peer{Namespaces: &teamB, Pods: sel(t, "app=web")}),
			tcp(heir, web, 80), false},
		{"two items are alternatives", Ingress, peers(cluster.Peer{Pods: everything},
			cluster.Peer{Namespaces: &teamB, Pods: everything}), tcp(heir, web, 80), true},
		{"NotIn matches a pod without the label", Ingress, peers(cluster.Peer{Pods: sel(t, "tier notin (x)")}),
			tcp(db, web, 80), true},
		{"a negative selector matches no outside address", Ingress,
			peers(cluster.Peer{Namespaces: &everything, Pods: sel(t, "tier notin (x)")}), tcp(outside, web, 80), false},
		{"a hole is not allowed", Ingress, peers(block("203.0.113.0/24", "203.0.113.8/29")), tcp(outside, web, 80),
			false},
		{"another block fills the hole", Ingress, peers(block("203.0.113.0/24", "203.0.113.8/29"),
			block("203.0.113.9/32")), tcp(outside, web, 80), true},
		{"the first port of a range", Ingress, ports(port(80, 90)), tcp(outside, web, 80), true},
		{"the last port of a range", Ingress, ports(port(80, 90)), tcp(outside, web, 90), true},
		{"the port after a range", Ingress, ports(port(80, 90)), tcp(outside, web, 91), false},
		{"SCTP is not TCP", Ingress, ports(port(80, 80)), sctp(web, 80), false},
		{"a protocol without port means all of its ports", Ingress,
			ports(cluster.Port{Protocol: cluster.SCTP, Any: true}), sctp(web, 7), true},
		{"a protocol without port means no other protocol", Ingress,
			ports(cluster.Port{Protocol: cluster.SCTP, Any: true}), tcp(outside, web, 7), false},
		{"no ports means every protocol, also ICMP", Ingress, peers(block("0.0.0.0/0")),
			Flow{Protocol: icmp, Src: outside, Dst: web}, true},
		{"a port is no leave for ICMP", Ingress, ports(port(1, 65535)), Flow{Protocol: icmp, Src: outside, Dst: web},
			false},
		{"a named port is the destination's", Ingress, ports(named(cluster.TCP)), tcp(outside, web, 80), true},
		{"a name that two ports carry means both", Ingress, ports(named(cluster.TCP)), tcp(outside, web, 8080), true},
		{"a name of another protocol means nothing", Ingress, ports(named(cluster.TCP)), tcp(outside, web, 90), false},
		{"a name means the number of its protocol", Ingress, ports(named(cluster.SCTP)), sctp(web, 90), true},
		{"a name that the destination does not declare means nothing", Ingress, ports(named(cluster.TCP)),
			tcp(outside, db, 80), false},
		{"on egress the name is the destination's as well", Egress, ports(named(cluster.TCP)), tcp(db, web, 80), true},
		{"on egress the subject's own ports mean nothing", Egress, ports(named(cluster.TCP)), tcp(web, otherWeb, 80),
			false},
		{"an outside address has no named ports", Egress, ports(named(cluster.TCP)), tcp(web, outside, 80), false},
		{"a node has no named ports", Egress, ports(named(cluster.TCP)), tcp(db, node1, 80), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Judge(world(t, allows(tt.dir, tt.rule)), tt.flow); got.Allowed != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestBothSidesMustAllow(t *testing.T) {
	in := allows(Ingress, cluster.Rule{Peers: cluster.Peers{Any: true}, Ports: cluster.Ports{Any: true}})
	out := allows(Egress, cluster.Rule{Peers: cluster.Peers{Any: true}, Ports: cluster.Ports{Any: true}})
	out.Key.Name = "allows-out"
	for _, tt := range []struct {
		name     string
		policies []*cluster.Policy
		want     bool
	}{
		{"ingress alone is not enough", []*cluster.Policy{closed(), in}, false},
		{"egress alone is not enough", []*cluster.Policy{closed(), out}, false},
		{"both are", []*cluster.Policy{closed(), in, out}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Judge(world(t, tt.policies...), tcp(db, web, 80)); got.Allowed != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestOfTwoPodsWithOneAddressTheStayingOneOwnsIt(t *testing.T) {
	snap := world(t, closed())
	snap.Pods = append(snap.Pods, &cluster.Pod{Key: cluster.Key{Namespace: "other", Name: "z"}, Node: "n2",
		IPs: []netip.Addr{addr("10.0.2.8")}})
	if got := Judge(snap, tcp(otherWeb, Addr(addr("10.0.2.8")), 80)); !got.Allowed {
		t.Errorf("the terminating pod's isolation applies to its heir: %v", got)
	}
	if got := Judge(snap, tcp(otherWeb, leaving, 80)); got.Allowed {
		t.Errorf("asked by name, the terminating pod is open: %v", got)
	}
}

func TestReasons(t *testing.T) {
	rules := allows(Ingress, cluster.Rule{})
	rules.Ingress = []cluster.Rule{
		{Index: 0, Peers: cluster.Peers{List: []cluster.Peer{block("198.51.100.0/24"), {Pods: sel(t, "app=x")}}},
			Ports: cluster.Ports{Any: true}},
		{Index: 2, Peers: cluster.Peers{List: []cluster.Peer{{Pods: sel(t, "app=db")}}},
			Ports: cluster.Ports{List: []cluster.Port{port(22, 22), {Protocol: cluster.TCP, Name: "ssh"}}}},
		{Index: 3, Peers: cluster.Peers{List: []cluster.Peer{block("192.0.2.0/24")}},
			Ports: cluster.Ports{List: []cluster.Port{port(443, 443)}}},
		{Index: 4, Peers: cluster.Peers{List: []cluster.Peer{block("203.0.113.0/24", "203.0.113.8/29")}},
			Ports: cluster.Ports{List: []cluster.Port{port(22, 22)}}},
	}
	for _, tt := range []struct {
		name string
		flow Flow
		want string
	}{
		{"a match names policy, rule, peer and port", tcp(db, web, 22),
			"allowed; egress: not isolated; ingress: allowed by shop/allows ingress[2] peer 0 port 0"},
		{"a matching peer is nearer than a matching port", tcp(db, web, 80),
			"denied; egress: not isolated; ingress: isolated by shop/allows, no rule allows it; nearest is shop/allows ingress[2]: " +
				"peer matches, but no port matches: tcp:22, tcp:ssh (the destination declares no tcp:ssh)"},
		{"matching labels are missed narrowly", tcp(leaving, web, 80),
			"denied; egress: not isolated; ingress: isolated by shop/allows, no rule allows it; nearest is shop/allows ingress[0]: " +
				"port matches, but peer 1: the namespace matches, the pod's labels do not"},
		{"a matching port is nearer than a half matching peer", tcp(outside, web, 443),
			"denied; egress: not a pod that policies apply to; ingress: isolated by shop/allows, no rule allows it; nearest is shop/allows ingress[0]: " +
				"port matches, but peer 1 selects pods, and this is none"},
		{"an except is missed narrowly", tcp(outside, web, 22),
			"denied; egress: not a pod that policies apply to; ingress: isolated by shop/allows, no rule allows it; nearest is shop/allows ingress[4]: " +
				"port matches, but peer 0: the address is in an except"},
		{"the outside is no subject", tcp(web, outside, 80),
			"allowed; egress: not isolated; ingress: not a pod that policies apply to"},
		{"the node's exemption is named", tcp(node1, web, 80),
			"allowed; egress: not a pod that policies apply to; ingress: the pod's own node"},
		{"an unknown pod is denied", tcp(Pod("shop", "nobody"), web, 80),
			"denied; egress: no such pod or address; ingress: no such pod or address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Judge(world(t, rules), tt.flow).String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestEveryIsolatingPolicyIsNamed(t *testing.T) {
	second := closed()
	second.Key.Name = "also"
	got := Judge(world(t, closed(), second), tcp(otherWeb, web, 80))
	if s := got.Ingress.String(); !strings.Contains(s, "shop/also, shop/closed") || got.Ingress.Nearest != nil {
		t.Errorf("got %s", s)
	}
}

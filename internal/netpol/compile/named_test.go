// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// A named port means, for each destination pod, the numbers that this pod
// declares under the name for the rule's protocol.
func TestNamedPortsAreLookedUpInEachDestination(t *testing.T) {
	web, far, outside := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"),
		netip.MustParseAddr("198.51.100.7")
	pods := []*cluster.Pod{
		{Key: cluster.Key{Namespace: "shop", Name: "web"}, Node: "one", IPs: []netip.Addr{web},
			Declared: &cluster.Declared{Ports: []cluster.NamedPort{
				{Name: "dns", Protocol: cluster.TCP, Port: 53}, {Name: "dns", Protocol: cluster.UDP, Port: 54},
				{Name: "dns", Protocol: cluster.UDP, Port: 55}}}},
		{Key: cluster.Key{Namespace: "shop", Name: "far"}, Node: "two", IPs: []netip.Addr{far},
			Declared: &cluster.Declared{Ports: []cluster.NamedPort{
				{Name: "dns", Protocol: cluster.UDP, Port: 80}, {Name: "other", Protocol: cluster.UDP, Port: 81}}}},
	}
	rule := []cluster.Rule{{Peers: cluster.Peers{Any: true},
		Ports: cluster.Ports{List: []cluster.Port{{Protocol: cluster.UDP, Name: "dns"}}}}}
	p := &cluster.Policy{Key: cluster.Key{Namespace: "shop", Name: "p"}, Subject: cluster.Everything(),
		IsolatesIngress: true, IsolatesEgress: true, Ingress: rule, Egress: rule}
	prog := compile.Program(policy.Resolve(&cluster.Snapshot{
		Namespaces: []*cluster.Namespace{{Name: "shop"}}, Pods: pods, Policies: []*cluster.Policy{p}}, "one"),
		compile.Options{})
	tests := []struct {
		name     string
		src, dst netip.Addr
		protocol inet.Protocol
		port     uint16
		want     program.Verdict
	}{
		{"the number of the pod", outside, web, inet.UDP, 54, program.Accept},
		{"a second number under the name", outside, web, inet.UDP, 55, program.Accept},
		{"the number of the other protocol", outside, web, inet.UDP, 53, program.Drop},
		{"the protocol of the other number", outside, web, inet.TCP, 53, program.Drop},
		{"the number of another pod", outside, web, inet.UDP, 80, program.Drop},
		{"egress, the number of the destination", web, far, inet.UDP, 80, program.Accept},
		{"egress, the number of the source", web, far, inet.UDP, 54, program.Drop},
		{"egress, another name of the destination", web, far, inet.UDP, 81, program.Drop},
		{"egress to an address that is no pod", web, outside, inet.UDP, 80, program.Drop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := program.Flow{Protocol: tt.protocol, Src: tt.src, Dst: tt.dst, DstPort: tt.port}
			if got := program.Eval(prog, f); got != tt.want {
				t.Errorf("verdict = %s, want %s\n%s", got, tt.want, prog)
			}
		})
	}
}

// Beside a named port the peers still count: an ingress rule looks at the
// source and finds the number in the subject, an egress rule looks at the
// destination and finds it there.
func TestNamedPortsKeepTheirPeers(t *testing.T) {
	pod := func(name, node, ip string, port uint16) *cluster.Pod {
		return &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, Node: node,
			IPs:      []netip.Addr{netip.MustParseAddr(ip)},
			Labels:   cluster.NewLabels(map[string]string{"app": name}),
			Declared: &cluster.Declared{Ports: []cluster.NamedPort{{Name: "http", Protocol: cluster.TCP, Port: port}}}}
	}
	web, db, other := pod("web", "one", "10.0.0.1", 81), pod("db", "two", "10.0.0.2", 82),
		pod("other", "two", "10.0.0.3", 83)
	snap := &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}, Pods: []*cluster.Pod{web, db, other}}
	rules := []cluster.Rule{{
		Peers: cluster.Peers{List: []cluster.Peer{{Pods: labelled("app", "db")}}},
		Ports: cluster.Ports{List: []cluster.Port{{Protocol: cluster.TCP, Name: "http"}}},
	}}
	snap.Policies = []*cluster.Policy{{Key: cluster.Key{Namespace: "shop", Name: "p"}, Subject: labelled("app", "web"),
		IsolatesIngress: true, IsolatesEgress: true, Ingress: rules, Egress: rules}}
	prog := compile.Program(policy.Resolve(snap, "one"), compile.Options{})
	tests := []struct {
		name     string
		src, dst *cluster.Pod
		port     uint16
		want     program.Verdict
	}{
		{"the peer to the number of the subject", db, web, 81, program.Accept},
		{"the peer to its own number", db, web, 82, program.Drop},
		{"another pod to the number of the subject", other, web, 81, program.Drop},
		{"to the peer with its number", web, db, 82, program.Accept},
		{"to the peer with the number of the subject", web, db, 81, program.Drop},
		{"to another pod with its number", web, other, 83, program.Drop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := program.Flow{Protocol: inet.TCP, Src: tt.src.IPs[0], Dst: tt.dst.IPs[0], DstPort: tt.port}
			if got := program.Eval(prog, f); got != tt.want {
				t.Errorf("verdict = %s, want %s\n%s", got, tt.want, prog)
			}
		})
	}
}

func labelled(key, value string) cluster.Selector {
	return cluster.NewSelector(labels.SelectorFromSet(labels.Set{key: value}))
}

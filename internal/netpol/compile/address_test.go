// SPDX-License-Identifier: Apache-2.0

package compile_test

import (
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

func withAddresses(name, node string, addrs ...string) *cluster.Pod {
	p := &cluster.Pod{Key: cluster.Key{Namespace: "shop", Name: name}, Node: node,
		Labels: cluster.NewLabels(map[string]string{"app": name})}
	for _, a := range addrs {
		p.IPs = append(p.IPs, netip.MustParseAddr(a))
	}
	return p
}

// both isolates the pods of an app in both directions and allows one peer.
func both(app string, peer networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: app}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}}}
	np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{peer}}}
	return np
}

func app(name string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}
}

func cidr(text string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: text}}
}

// ask wants one verdict for both directions between two addresses.
func ask(t *testing.T, p *program.Program, subject, peer netip.Addr, want program.Verdict) {
	t.Helper()
	for _, f := range []program.Flow{{Src: peer, Dst: subject}, {Src: subject, Dst: peer}} {
		f.Protocol, f.DstPort = inet.TCP, 80
		if got := program.Eval(p, f); got != want {
			t.Errorf("%s to %s: %s, want %s", f.Src, f.Dst, got, want)
		}
	}
}

// The API promises one address of each family, and some networks write more.
// Each of them is the pod's: as subject, and as peer.
func TestEveryAddressOfAPodCounts(t *testing.T) {
	web := withAddresses("web", "one", "10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2")
	db := withAddresses("db", "two", "10.0.1.1", "10.0.1.2", "10.0.1.3", "fd00:1::1", "fd00:1::2")
	no := withAddresses("no", "two", "10.0.2.1", "10.0.2.2", "fd00:2::1", "fd00:2::2")
	snap := &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}, Pods: []*cluster.Pod{web, db, no}}
	p := compile.Program(policy.Resolve(withPolicies(snap, []*networkingv1.NetworkPolicy{both("web", app("db"))}),
		"one"), compile.Options{})
	for _, subject := range web.IPs {
		for peer, want := range map[*cluster.Pod]program.Verdict{db: program.Accept, no: program.Drop} {
			for _, a := range peer.IPs {
				if a.Is4() == subject.Is4() {
					ask(t, p, subject, a, want)
				}
			}
		}
	}
}

// What a policy says about one family closes the other too.
func TestAPolicyOfOneFamilyIsolatesTheOther(t *testing.T) {
	web, db := withAddresses("web", "one", "10.0.0.1", "fd00::1"), withAddresses("db", "two", "10.0.1.1", "fd00:1::1")
	outside := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
	for _, tt := range []struct {
		name           string
		peer           networkingv1.NetworkPolicyPeer
		db4, db6       program.Verdict
		world4, world6 program.Verdict
	}{
		{"an IPv4 block", cidr("0.0.0.0/0"), program.Accept, program.Drop, program.Accept, program.Drop},
		{"an IPv6 block", cidr("::/0"), program.Drop, program.Accept, program.Drop, program.Accept},
		{"the IPv4 address of a pod", cidr("10.0.1.1/32"), program.Accept, program.Drop, program.Drop, program.Drop},
		{"the pod itself", app("db"), program.Accept, program.Accept, program.Drop, program.Drop},
	} {
		t.Run(tt.name, func(t *testing.T) {
			snap := &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}, Pods: []*cluster.Pod{web, db}}
			p := compile.Program(policy.Resolve(withPolicies(snap, []*networkingv1.NetworkPolicy{both("web", tt.peer)}),
				"one"), compile.Options{})
			ask(t, p, web.IPs[0], db.IPs[0], tt.db4)
			ask(t, p, web.IPs[1], db.IPs[1], tt.db6)
			ask(t, p, web.IPs[0], outside[0], tt.world4)
			ask(t, p, web.IPs[1], outside[1], tt.world6)
		})
	}
}

// IPv6 knows several sorts of addresses. None is special but link-local ones, which
// a wider block does not mean: a block means the addresses in it, and a peer pod
// those that the API names. A privacy address, which the API does not name, is no pod's.
func TestNoSortOfIPv6AddressIsSpecialButLinkLocal(t *testing.T) {
	web := withAddresses("web", "one", "2001:db8:1::1")
	db := withAddresses("db", "two", "2001:db8:2::1", "fd00:2::1", "fe80::2")
	snap := &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "shop"}}, Pods: []*cluster.Pod{web, db}}
	sorts := map[string]string{
		"global": "2001:db8:2::1", "unique local": "fd00:2::1", "link-local": "fe80::2", "multicast": "ff02::1",
		"privacy": "2001:db8:2:0:4c1d:33ff:fe12:9a7b",
	}
	for _, tt := range []struct {
		name  string
		peer  networkingv1.NetworkPolicyPeer
		allow []string
	}{
		{"the pod", app("db"), []string{"global", "unique local", "link-local"}},
		{"link-local addresses", cidr("fe80::/10"), []string{"link-local"}},
		{"unique local addresses", cidr("fc00::/7"), []string{"unique local"}},
		{"the pod's network", cidr("2001:db8:2::/64"), []string{"global", "privacy"}},
		{"everything", cidr("::/0"), []string{"global", "unique local", "multicast", "privacy"}},
		{"everything of IPv4", cidr("0.0.0.0/0"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compile.Program(policy.Resolve(withPolicies(snap, []*networkingv1.NetworkPolicy{both("web", tt.peer)}),
				"one"), compile.Options{})
			want := map[string]program.Verdict{}
			for name := range sorts {
				want[name] = program.Drop
			}
			for _, name := range tt.allow {
				want[name] = program.Accept
			}
			for name, a := range sorts {
				ask(t, p, web.IPs[0], netip.MustParseAddr(a), want[name])
			}
		})
	}
}

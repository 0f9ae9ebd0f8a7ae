// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/cluster"
)

// FuzzPolicy checks that no spec makes the conversion panic, that a rule gets
// no peer and no port that its text does not have, and that parts which are not
// understood open nothing.
func FuzzPolicy(f *testing.F) {
	f.Add(`{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9]}}], ports: [{port: http}]}]}`)
	f.Add(`{podSelector: {matchExpressions: [{key: a, operator: In, values: [b]}]}, egress: [{to: [{}], ports: [{endPort: 1}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var np networkingv1.NetworkPolicy
		if yaml.Unmarshal([]byte(text), &np.Spec) != nil {
			return
		}
		p, found := Policy(&np)
		if !p.Subject.Valid() || !p.IsolatesIngress && !p.IsolatesEgress {
			t.Fatalf("%s isolates nothing", text)
		}
		checkRules(t, p.Ingress, ingressRules(np.Spec.Ingress))
		checkRules(t, p.Egress, egressRules(np.Spec.Egress))
		if slices.ContainsFunc(found, isError) {
			checkRest(t, &np, p)
		}
	})
}

func isError(d cluster.Diagnostic) bool { return d.Severity == cluster.Error }

// checkRest takes out what is not understood and compares: the policy isolates
// at least what the rest isolates, and allows there exactly what the rest
// allows.
func checkRest(t *testing.T, np *networkingv1.NetworkPolicy, p *cluster.Policy) {
	t.Helper()
	if _, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector); err != nil {
		if !p.Subject.MatchesAll() || len(p.Ingress)+len(p.Egress) > 0 {
			t.Errorf("a policy for nobody knows whom does not close its namespace: %+v", p)
		}
		return
	}
	rest, found := Policy(understood(np))
	if slices.ContainsFunc(found, isError) {
		t.Fatalf("the rest is not understood either: %v", found)
	}
	if rest.IsolatesIngress && !p.IsolatesIngress || rest.IsolatesEgress && !p.IsolatesEgress {
		t.Errorf("parts that are not understood open a direction: %+v", p)
	}
	// An unknown type may stand for any, so the default counts too.
	unknown := len(understood(np).Spec.PolicyTypes) < len(np.Spec.PolicyTypes)
	if unknown && (!p.IsolatesIngress || !p.IsolatesEgress && len(np.Spec.Egress) > 0) {
		t.Errorf("an unknown type opens a direction: %+v", p)
	}
	if rest.Subject.Text() != p.Subject.Text() {
		t.Errorf("subject %s, without the parts that are not understood %s", p.Subject, rest.Subject)
	}
	if rest.IsolatesIngress {
		sameRules(t, p.Ingress, rest.Ingress)
	}
	if rest.IsolatesEgress {
		sameRules(t, p.Egress, rest.Egress)
	}
}

// sameRules compares the rules that something can match.
func sameRules(t *testing.T, got, want []cluster.Rule) {
	t.Helper()
	alive := func(list []cluster.Rule) []cluster.Rule {
		var some []cluster.Rule
		for _, r := range list {
			if (r.Peers.Any || len(r.Peers.List) > 0) && (r.Ports.Any || len(r.Ports.List) > 0) {
				r.Index = 0
				some = append(some, r)
			}
		}
		return some
	}
	if got, want := alive(got), alive(want); !reflect.DeepEqual(got, want) {
		t.Errorf("rules %+v, without the parts that are not understood %+v", got, want)
	}
}

// understood returns the policy without the types, peers and ports that are
// not understood, each asked alone, and without rules that had only such.
func understood(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	rest := np.DeepCopy()
	rest.Spec.PolicyTypes, rest.Spec.Ingress, rest.Spec.Egress = nil, nil, nil
	for _, t := range np.Spec.PolicyTypes {
		if t == networkingv1.PolicyTypeIngress || t == networkingv1.PolicyTypeEgress {
			rest.Spec.PolicyTypes = append(rest.Spec.PolicyTypes, t)
		}
	}
	for _, r := range ingressRules(np.Spec.Ingress) {
		if r, some := understoodRule(r); some {
			rest.Spec.Ingress = append(rest.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: r.peers,
				Ports: r.ports})
		}
	}
	for _, r := range egressRules(np.Spec.Egress) {
		if r, some := understoodRule(r); some {
			rest.Spec.Egress = append(rest.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: r.peers,
				Ports: r.ports})
		}
	}
	return rest
}

func understoodRule(r rule) (rest rule, some bool) {
	for _, p := range r.peers {
		if _, ok := new(reader).peer("", &p); ok && plain(p.IPBlock) {
			rest.peers = append(rest.peers, p)
		}
	}
	for _, p := range r.ports {
		if plainPort(p) {
			rest.ports = append(rest.ports, p)
		}
	}
	some = (len(r.peers) == 0 || len(rest.peers) > 0) && (len(r.ports) == 0 || len(rest.ports) > 0)
	return rest, some
}

// plain reports whether every text of a block is a prefix of one family, asked
// of the standard library alone, or one that the API server reads.
func plain(b *networkingv1.IPBlock) bool {
	if b == nil {
		return true
	}
	cidr, ok := plainCIDR(b.CIDR)
	for _, text := range b.Except {
		e, understood := plainCIDR(text)
		ok = ok && understood && e.Addr().Is4() == cidr.Addr().Is4()
	}
	return ok
}

func plainCIDR(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil && !p.Addr().Is4In6() {
		return p, true
	}
	p, _, err := parseCIDR(text) // held against the API server's parser by TestCIDRsAreReadAsTheAPIServerReadsThem
	return p, err == nil
}

// plainPort reports whether an entry is what the API allows, in its own words.
func plainPort(p networkingv1.NetworkPolicyPort) bool {
	protocol := p.Protocol == nil || slices.Contains([]corev1.Protocol{"TCP", "UDP", "SCTP"}, *p.Protocol)
	switch {
	case p.Port == nil:
		return protocol && p.EndPort == nil
	case p.Port.Type == intstr.String:
		return protocol && p.EndPort == nil && len(validation.IsValidPortName(p.Port.StrVal)) == 0
	}
	first := p.Port.IntVal
	return protocol && first > 0 && first < 1<<16 && (p.EndPort == nil || *p.EndPort >= first && *p.EndPort < 1<<16)
}

// FuzzPod checks that no pod makes the conversion panic, and that what comes
// out is what the rest of the program relies on.
func FuzzPod(f *testing.F) {
	f.Add(`{status: {podIPs: [{ip: 10.0.0.1}, {ip: "::ffff:10.0.0.1"}, {ip: fd00::1}, {ip: "fe80::1%eth0"}, {ip: 010.0.0.1}]}}`)
	f.Add(`{spec: {containers: [{ports: [{name: http, containerPort: 80}, {name: http, containerPort: 70000, protocol: udp}]}]}}`)
	f.Add(`{metadata: {labels: {b: x, a: ""}}, status: {phase: Failed, podIP: 0.0.0.0}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var pod corev1.Pod
		if yaml.Unmarshal([]byte(text), &pod) != nil {
			return
		}
		p := Pod(&pod)
		for i, a := range p.IPs {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || slices.Contains(p.IPs[:i], a) {
				t.Errorf("%s: addresses %v", text, p.IPs)
			}
		}
		for _, n := range p.NamedPorts() {
			if n.Name == "" || n.Port == 0 || n.Protocol.String() == "invalid" {
				t.Errorf("%s: ports %v", text, p.NamedPorts())
			}
		}
		for key, value := range pod.Labels {
			if got, ok := p.Labels.Lookup(key); !ok || got != value {
				t.Errorf("%s: labels %s", text, p.Labels)
			}
		}
		if len(p.Labels) != len(pod.Labels) || !p.Equal(NewInterner().Pod(&pod)) {
			t.Errorf("%s: read twice, %+v", text, p)
		}
	})
}

func checkRules(t *testing.T, got []cluster.Rule, raw []rule) {
	t.Helper()
	for _, r := range got {
		from := raw[r.Index]
		if r.Peers.Any != (len(from.peers) == 0) || len(r.Peers.List) > len(from.peers) {
			t.Errorf("rule %d: %d peers became %+v", r.Index, len(from.peers), r.Peers)
		}
		if r.Ports.Any != (len(from.ports) == 0) || len(r.Ports.List) > len(from.ports) {
			t.Errorf("rule %d: %d ports became %+v", r.Index, len(from.ports), r.Ports)
		}
	}
}

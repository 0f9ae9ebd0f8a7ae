// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/google/go-cmp/cmp"
)

const namespace = "bench"

// newPod is a pod whose labels are its name and, if it is one, that it is a
// peer.
func newPod(name, node, addr string, peer bool) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: addr}}}}
	if peer {
		p.Labels["tier"] = "peer"
	}
	return p
}

// newPolicy selects the pod app; the rest of its spec is YAML.
func newPolicy(t *testing.T, app, spec string) networkingv1.NetworkPolicy {
	t.Helper()
	p := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: app}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
	return p
}

// of returns the rules of a chain.
func (r *rules) of(chain string) (list []string) {
	for _, line := range r.lines {
		if rest, ok := strings.CutPrefix(line, "-A "+chain+" "); ok {
			list = append(list, rest)
		}
	}
	return list
}

func mustRender(t *testing.T, c objects) rules {
	t.Helper()
	r, err := render(c, "node1", "1")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryLocalPodHasAChainAndSevenJumps(t *testing.T) {
	finished := newPod("finished", "node1", "10.0.0.3", false)
	finished.Status.Phase = corev1.PodSucceeded
	host := newPod("host", "node1", "10.0.0.4", false)
	host.Spec.HostNetwork = true
	c := newObjects(nil, []corev1.Pod{newPod("near", "node1", "10.0.0.1", false), newPod("far", "node2", "10.0.0.2", false), finished, host}, nil)
	r := mustRender(t, c)
	chain := named("KUBE-POD-FW-", namespace, "near", "1")
	jump := ` -m comment --comment "pod bench/near" -j ` + chain
	toTail := []string{"-j " + tail, "-m mark --mark 0x20000/0x20000 -j ACCEPT"}
	want := append([]string{"-d 10.0.0.1" + jump, "-d 10.0.0.1 -m physdev --physdev-is-bridged" + jump,
		"-s 10.0.0.1" + jump, "-s 10.0.0.1 -m physdev --physdev-is-bridged" + jump}, toTail...)
	if diff := cmp.Diff(want, r.of(forward)); diff != "" {
		t.Errorf("FORWARD (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(append([]string{"-d 10.0.0.1" + jump, "-s 10.0.0.1" + jump}, toTail...), r.of(output)); diff != "" {
		t.Errorf("OUTPUT (-want +got):\n%s", diff)
	}
	const exemptions = 4
	if diff := cmp.Diff(append([]string{"-s 10.0.0.1" + jump}, toTail...), r.of(input)[exemptions:]); diff != "" {
		t.Errorf("INPUT (-want +got):\n%s", diff)
	}
	note := ` -m comment --comment "pod bench/near"`
	want = []string{"-j " + inCommon, "-d 10.0.0.1 -m addrtype --src-type LOCAL" + note + " -j ACCEPT",
		"-d 10.0.0.1 -j " + byDefault, "-s 10.0.0.1 -j " + byDefault,
		"-m mark ! --mark 0x10000/0x10000 -m limit --limit 10/minute --limit-burst 10" + note + " -j NFLOG --nflog-group 100",
		"-m mark ! --mark 0x10000/0x10000" + note + " -j REJECT",
		"-j MARK --set-xmark 0x0/0x10000", "-j MARK --set-xmark 0x20000/0x20000"}
	if diff := cmp.Diff(want, r.of(chain)); diff != "" {
		t.Errorf("the pod's chain (-want +got):\n%s", diff)
	}
}

func TestAPolicyOfNoLocalPodHasAChainAndSetsAllTheSame(t *testing.T) {
	pol := newPolicy(t, "far", `{policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {tier: peer}}},
		{ipBlock: {cidr: 0.0.0.0/0, except: [10.1.0.0/16]}}], ports: [{port: 80}, {port: 90, endPort: 99, protocol: UDP}]}]}`)
	c := newObjects(nil, []corev1.Pod{newPod("far", "node2", "10.0.0.2", true), newPod("other", "node3", "10.0.0.3", true)}, []networkingv1.NetworkPolicy{pol})
	r := mustRender(t, c)
	target := named("KUBE-DST-", namespace, "far")
	pods, blocks := named("KUBE-PEER-", namespace, "far", "src", "0", "hash:ip"), named("KUBE-PEER-", namespace, "far", "src", "0", "hash:net")
	want := []set{{target, "hash:ip", []string{"10.0.0.2"}}, {pods, "hash:ip", []string{"10.0.0.2", "10.0.0.3"}},
		{blocks, "hash:net", []string{"0.0.0.0/1", "128.0.0.0/1", "10.1.0.0/16 nomatch"}}}
	if diff := cmp.Diff(want, r.sets, cmp.AllowUnexported(set{})); diff != "" {
		t.Errorf("sets (-want +got):\n%s", diff)
	}
	var lines []string
	for _, peers := range []string{pods, blocks} {
		for _, port := range []string{" -p tcp -m tcp --dport 80", " -p udp -m udp --dport 90:99"} {
			match := "-m set --match-set " + peers + " src -m set --match-set " + target + " dst" + port + ` -m comment --comment "policy bench/far" `
			lines = append(lines, match+"-j MARK --set-xmark 0x10000/0x10000", match+"-m mark --mark 0x10000/0x10000 -j RETURN")
		}
	}
	if diff := cmp.Diff(lines, r.of(named("KUBE-NWPLCY-", namespace, "far", "1"))); diff != "" {
		t.Errorf("the policy's chain (-want +got):\n%s", diff)
	}
}

func TestNamedPortsAreRefused(t *testing.T) {
	web := intstr.FromString("web")
	pol := newPolicy(t, "near", `{policyTypes: [Ingress]}`)
	pol.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &web}}}}
	if _, err := render(newObjects(nil, nil, []networkingv1.NetworkPolicy{pol}), "node1", "1"); err == nil {
		t.Error("a named port was rendered: its rule would allow every port or none")
	}
}

func TestItStartsNowhereElse(t *testing.T) {
	for _, env := range [][2]string{{"", ""}, {"node1", ""}, {"", "/nonexistent"}} {
		if err := safe(env[0], env[1]); err == nil {
			t.Errorf("it starts with NODE_NAME=%q KUBECONFIG=%q", env[0], env[1])
		}
	}
}

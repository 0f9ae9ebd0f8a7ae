// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAShapeHasWhatItSays(t *testing.T) {
	s := shape{nodes: 100, pods: 8_000, namespaces: 100, policies: 500, big: 2_000}
	namespaces, names, addresses := map[string]bool{}, map[string]bool{}, map[string]bool{}
	pods, policies, here := 0, 0, 0
	for _, o := range s.objects([]netip.Addr{netip.MustParseAddr("172.30.0.11")}) {
		key := o.GetNamespace() + "/" + o.GetName()
		switch o := o.(type) {
		case *corev1.Namespace:
			namespaces[o.Name] = true
		case *corev1.Pod:
			pods++
			addresses[o.Status.PodIP], names[key] = true, true
			if o.Spec.NodeName == nodeName {
				here++
			}
		case *networkingv1.NetworkPolicy:
			policies++
		}
		if ns := o.GetNamespace(); ns != "" && !namespaces[ns] {
			t.Fatalf("%s comes before its namespace", key)
		}
	}
	// Beside those of the shape: the small namespace and the target; two policies.
	if want := s.pods + small + 1; pods != want || len(names) != want || len(addresses) != want {
		t.Errorf("%d pods, %d names, %d addresses; want %d", pods, len(names), len(addresses), want)
	}
	if policies != s.policies+2 || len(namespaces) != s.namespaces+4 {
		t.Errorf("%d policies in %d namespaces, want %d in %d", policies, len(namespaces), s.policies+2, s.namespaces+4)
	}
	if want := len(s.local()); here != want {
		t.Errorf("%d pods are on the node, and %d places are wired for them", here, want)
	}
}

// A node of the shape must have something to enforce: policies that select its
// own pods.
func TestPoliciesSelectPodsOfTheNode(t *testing.T) {
	s := shape{nodes: 100, pods: 8_000, namespaces: 100, policies: 500}
	apps := map[string]bool{}
	for _, p := range s.listPods() {
		if p.Spec.NodeName == nodeName {
			apps[p.Namespace+"/"+p.Labels["app"]] = true
		}
	}
	selecting := 0
	for _, np := range s.listPolicies() {
		if _, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector); err != nil {
			t.Fatal(err)
		}
		if apps[np.Namespace+"/"+np.Spec.PodSelector.MatchLabels["app"]] {
			selecting++
		}
	}
	if selecting < 30 {
		t.Errorf("%d of %d policies select a pod of the node, want 30 or more", selecting, len(s.listPolicies()))
	}
}

func TestPodsHaveTheStatusThatTheirKubeletWrites(t *testing.T) {
	for node, host := range map[string]string{nodeName: "172.30.0.11", "node-1": "172.31.0.1"} {
		s := newPod("x", "y", node, ofLocal(0), nil).Status
		if s.HostIP != host || len(s.Conditions) == 0 || len(s.ContainerStatuses) != 1 {
			t.Errorf("on %s: %+v", node, s)
		}
	}
}

// The head of an attribute (length, type, both little-endian) must not look like
// an address that is waited for.
func TestAddressesAreNoAttributeHeads(t *testing.T) {
	const longest = 16 << 10 // of the attributes in a notification
	for _, ip := range []netip.Addr{ofShape(100_000), ofEvent(0), ofEvent(100_000), ofMoved(10_000), ofPolicy(1_000), ofLocal(visitors)} {
		b := ip.As4()
		if length := int(b[0]) | int(b[1])<<8; length <= longest {
			t.Errorf("%v reads as an attribute of %d bytes", ip, length)
		}
	}
}

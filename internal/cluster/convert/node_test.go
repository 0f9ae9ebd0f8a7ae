// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNodeAddresses(t *testing.T) {
	n := Node(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::1"}, {Type: corev1.NodeExternalIP,
				Address: "::ffff:192.0.2.1"},
			{Type: corev1.NodeExternalIP, Address: "198.51.100.1"}, {Type: corev1.NodeInternalIP, Address: "0.0.0.0"},
			{Type: corev1.NodeInternalIP, Address: "fe80::1%eth0"}, {Type: corev1.NodeHostName, Address: "203.0.113.1"},
		}}})
	if got := fmt.Sprint(n.Name, n.Zone, n.Addrs); got != "n1z[192.0.2.1 2001:db8::1 198.51.100.1]" {
		t.Errorf("got %s", got)
	}
}

func TestRangesOfANodesPods(t *testing.T) {
	for _, tt := range []struct {
		one  string
		all  []string
		want string
	}{
		{"", nil, "[]"},
		{"10.0.1.0/24", nil, "[10.0.1.0/24]"},
		{"10.0.1.0/24", []string{"10.0.2.0/24", "fd00:0:0:2::/64"}, "[10.0.2.0/24 fd00:0:0:2::/64]"},
		{"", []string{"10.0.2.7/24", "10.0.2.0/24", "x", "::ffff:10.0.0.0/104", "010.0.0.0/8"}, "[10.0.2.0/24]"},
	} {
		n := Node(&corev1.Node{Spec: corev1.NodeSpec{PodCIDR: tt.one, PodCIDRs: tt.all}})
		if got := fmt.Sprint(n.PodCIDRs); got != tt.want {
			t.Errorf("of %s and %s: %s, want %s", tt.one, tt.all, got, tt.want)
		}
	}
}

func TestNodesThatLeave(t *testing.T) {
	for want, of := range map[bool][]corev1.Node{
		false: {{}, {Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "x", Value: TaintToBeDeleted}}, Unschedulable: true}}},
		true: {{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}},
			{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "x"}, {Key: TaintToBeDeleted}}}}},
	} {
		for i, n := range of {
			if got := Node(&n).Leaving; got != want {
				t.Errorf("node %d leaves: %t, want %t", i, got, want)
			}
		}
	}
}

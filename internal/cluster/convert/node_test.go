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

// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

func TestPodKeepsWhatDecides(t *testing.T) {
	now := metav1.NewTime(time.Unix(0, 0))
	always := corev1.ContainerRestartPolicyAlways
	got := Pod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "web-0", UID: "u-1", Labels: map[string]string{"b": "2", "a": "1"},
			DeletionTimestamp: &now,
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", HostNetwork: true,
			InitContainers: []corev1.Container{{RestartPolicy: &always,
				Ports: []corev1.ContainerPort{{Name: "proxy", ContainerPort: 15001}}}},
			Containers: []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}, {ContainerPort: 81},
					{Name: "http", ContainerPort: 80}}},
				{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080},
					{Name: "dns", ContainerPort: 53, Protocol: "UDP"}}},
				{Ports: []corev1.ContainerPort{{Name: "zero"}, {Name: "odd", ContainerPort: 1, Protocol: "ICMP"}}},
			},
		},
		Status: corev1.PodStatus{Phase: corev1.PodFailed, PodIP: "10.0.0.1",
			PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}},
	})
	want := &cluster.Pod{
		Key: cluster.Key{Namespace: "ns", Name: "web-0"}, UID: "u-1", Node: "n1",
		Labels: cluster.Labels{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}},
		IPs:    []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Declared: &cluster.Declared{Ports: []cluster.NamedPort{
			{Name: "http", Protocol: cluster.TCP, Port: 80}, {Name: "http", Protocol: cluster.TCP, Port: 8080},
			{Name: "dns", Protocol: cluster.UDP, Port: 53}, {Name: "proxy", Protocol: cluster.TCP, Port: 15001},
		}},
		HostNetwork: true, Finished: true, Terminating: true,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
}

func TestPodAddresses(t *testing.T) {
	for _, c := range []struct {
		name, podIP string
		podIPs      []string
		want        string
	}{
		{"no status has no address", "", nil, "[]"},
		{"podIP alone is used", "10.0.0.1", nil, "[10.0.0.1]"},
		{"podIPs win over podIP", "10.0.0.9", []string{"10.0.0.1", "fd00::1"}, "[10.0.0.1 fd00::1]"},
		{"repetitions are dropped", "", []string{"10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"}, "[10.0.0.1]"},
		{"IPv4 written as IPv6 is IPv4", "::ffff:10.0.0.1", nil, "[10.0.0.1]"},
		{"what is no address is dropped", "", []string{"x", "", "010.0.0.1", "fe80::1%eth0", "10.0.0.2"}, "[10.0.0.2]"},
		{"the unspecified address is dropped", "", []string{"0.0.0.0", "::"}, "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := corev1.PodStatus{PodIP: c.podIP}
			for _, ip := range c.podIPs {
				s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
			}
			if got := fmt.Sprint(addresses(&s)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestPodPhases(t *testing.T) {
	for phase, finished := range map[corev1.PodPhase]bool{
		"": false, corev1.PodPending: false, corev1.PodRunning: false, corev1.PodUnknown: false,
		corev1.PodSucceeded: true, corev1.PodFailed: true,
	} {
		if got := Pod(&corev1.Pod{Status: corev1.PodStatus{Phase: phase}}).Finished; got != finished {
			t.Errorf("phase %q: finished is %v, want %v", phase, got, finished)
		}
	}
}

func TestNamespaceKeepsItsLabels(t *testing.T) {
	got := Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns", Labels: map[string]string{"a": "b"}}})
	want := &cluster.Namespace{Name: "ns", Labels: cluster.Labels{{Key: "a", Value: "b"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("namespace (-want +got):\n%s", diff)
	}
}

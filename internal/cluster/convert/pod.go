// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// Pod converts a pod without sharing memory with other pods.
func Pod(p *corev1.Pod) *cluster.Pod { return (*Interner)(nil).Pod(p) }

// Pod converts a pod. The result does not reference p.
func (in *Interner) Pod(p *corev1.Pod) *cluster.Pod {
	uid := string(p.UID)
	if static := p.Annotations[corev1.MirrorPodAnnotationKey]; static != "" {
		uid = static // the kubelet runs a static pod under this UID; the object is a mirror with another one
	}
	uid = in.uid(uid, p.Spec.NodeName)
	own := p.Name + uid // one allocation for the two texts that are unique to the pod
	return &cluster.Pod{
		Key:         cluster.Key{Namespace: in.text(p.Namespace), Name: own[:len(p.Name)]},
		UID:         own[len(p.Name):],
		Labels:      in.labelSet(p.Labels),
		Node:        in.text(p.Spec.NodeName),
		IPs:         addresses(&p.Status),
		Declared:    in.declared(in.namedPorts(&p.Spec), extra(p.Annotations[cluster.ExtraAnnotation])),
		HostNetwork: p.Spec.HostNetwork,
		Finished:    p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Terminating: p.DeletionTimestamp != nil,
	}
}

// addresses reads status.podIPs, or status.podIP if only that is set. The API promises that podIP
// is the first of podIPs. An address that cannot be read is left out: it can match no packet.
func addresses(s *corev1.PodStatus) []netip.Addr {
	if len(s.PodIPs) == 0 {
		return appendAddress(nil, s.PodIP)
	}
	list := make([]netip.Addr, 0, len(s.PodIPs))
	for _, ip := range s.PodIPs {
		list = appendAddress(list, ip.IP)
	}
	if len(list) == 0 {
		return nil
	}
	return list
}

func appendAddress(list []netip.Addr, text string) []netip.Addr {
	if text == "" {
		return list
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return list
	}
	a = a.Unmap()
	if a.IsUnspecified() || slices.Contains(list, a) {
		return list
	}
	return append(list, a)
}

// namedPorts lists the named ports of containers, then of init containers,
// which include sidecars (restartPolicy Always). The API forbids ports on
// ephemeral containers. A name may occur more than once.
func (in *Interner) namedPorts(s *corev1.PodSpec) []cluster.NamedPort {
	var list []cluster.NamedPort
	for _, containers := range [][]corev1.Container{s.Containers, s.InitContainers} {
		for i := range containers {
			for _, p := range containers[i].Ports {
				if named, ok := in.namedPort(p); ok && !slices.Contains(list, named) {
					list = append(list, named)
				}
			}
		}
	}
	return slices.Clip(list)
}

// namedPort reads one container port. Its protocol "defaults to TCP".
func (in *Interner) namedPort(p corev1.ContainerPort) (cluster.NamedPort, bool) {
	proto, ok := cluster.TCP, true
	if p.Protocol != "" {
		proto, ok = cluster.ParseProtocol(string(p.Protocol))
	}
	if p.Name == "" || !ok || p.ContainerPort < 1 || p.ContainerPort > 65535 {
		return cluster.NamedPort{}, false
	}
	return cluster.NamedPort{Name: in.text(p.Name), Protocol: proto, Port: uint16(p.ContainerPort)}, true
}

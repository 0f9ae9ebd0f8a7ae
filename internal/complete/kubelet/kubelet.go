// SPDX-License-Identifier: Apache-2.0

// Package kubelet gives pods the status that a kubelet writes, for pods that none runs.
// Programs that are measured or tried read more of it than ours does: kube-router takes a
// pod as its own by status.hostIP. Every maker of pods in the lab uses it.
package kubelet

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// started is when all pods began to run, in Unix seconds. It is always the same, so that
// objects are.
const started = 1_700_000_000

// Run sets the status of a pod whose containers run and are ready. host are the addresses
// of its node, the first one of which is the node's main address; addrs are the pod's
// own. Both may be empty: then the status has none.
func Run(p *corev1.Pod, host, addrs []netip.Addr) {
	now := metav1.Unix(started, 0)
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBestEffort, StartTime: &now,
		ObservedGeneration: max(p.Generation, 1)}
	if requests(p) {
		p.Status.QOSClass = corev1.PodQOSBurstable
	}
	for _, a := range host {
		p.Status.HostIPs = append(p.Status.HostIPs, corev1.HostIP{IP: a.String()})
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if len(host) > 0 {
		p.Status.HostIP = host[0].String()
	}
	if len(addrs) > 0 {
		p.Status.PodIP = addrs[0].String()
	}
	for _, kind := range conditions() {
		p.Status.Conditions = append(p.Status.Conditions,
			corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now,
				ObservedGeneration: p.Status.ObservedGeneration})
	}
	for _, c := range p.Spec.InitContainers {
		s := status(p, c)
		s.Started, s.State = nil,
			corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed",
				StartedAt: now, FinishedAt: now, ContainerID: s.ContainerID}}
		p.Status.InitContainerStatuses = append(p.Status.InitContainerStatuses, s)
	}
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, status(p, c))
	}
}

// conditions are those of a running pod, in the order in which a kubelet writes them.
func conditions() []corev1.PodConditionType {
	return []corev1.PodConditionType{corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady,
		corev1.ContainersReady, corev1.PodScheduled}
}

func status(p *corev1.Pod, c corev1.Container) corev1.ContainerStatus {
	yes, now := true, metav1.Unix(started, 0)
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: c.Image + "@sha256:" + digest(c.Image),
		ContainerID: "containerd://" + digest(p.Namespace+"/"+p.Name+"/"+c.Name), Ready: true, Started: &yes,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}
	s.Resources = c.Resources.DeepCopy()
	s.AllocatedResources = c.Resources.Requests.DeepCopy()
	s.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{SupplementalGroups: []int64{0}}}
	for _, m := range c.VolumeMounts {
		mount := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if disabled := corev1.RecursiveReadOnlyDisabled; m.ReadOnly {
			mount.RecursiveReadOnly = &disabled
		}
		s.VolumeMounts = append(s.VolumeMounts, mount)
	}
	return s
}

func requests(p *corev1.Pod) bool {
	for _, c := range p.Spec.Containers {
		for _, q := range c.Resources.Requests {
			if q.Cmp(resource.Quantity{}) > 0 {
				return true
			}
		}
	}
	return false
}

// digest is a number of 64 digits, the same for the same text.
func digest(text string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return fmt.Sprintf("%064x", h.Sum64())
}

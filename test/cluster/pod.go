// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	own "github.com/podwall/podwall/internal/lab/netns"
)

// Pod is a pod that runs.
type Pod struct {
	Namespace, Name string
	Node            *Node
	IPs             []netip.Addr
	object          *corev1.Pod
}

// PodSpec is a pod of agnhost, bound to a node, whose label app is its name
// unless Labels say otherwise.
func PodSpec(namespace, name, node string, args ...string) *corev1.Pod {
	var now int64
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name,
		Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: &now,
			Containers: []corev1.Container{{Name: "main", Image: Agnhost, Args: args}}}}
}

// Namespace makes a namespace and returns when pods can be made in it.
func (c *Cluster) Namespace(ctx context.Context, name string) error {
	_, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return Await(ctx, "the service account of "+name, patience, func(ctx context.Context) error {
		_, err := c.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// Run makes a pod and returns when it is ready.
func (c *Cluster) Run(ctx context.Context, spec *corev1.Pod) (*Pod, error) {
	if _, err := c.client.CoreV1().Pods(spec.Namespace).Create(ctx, spec, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	return c.AwaitPod(ctx, spec.Namespace, spec.Name)
}

// AwaitPod returns a pod when it is ready.
func (c *Cluster) AwaitPod(ctx context.Context, namespace, name string) (p *Pod, err error) {
	err = Await(ctx, "pod "+namespace+"/"+name, patience, func(ctx context.Context) error {
		p, err = c.look(ctx, namespace, name)
		return err
	})
	return p, err
}

// look returns a pod, or why it is not ready.
func (c *Cluster) look(ctx context.Context, namespace, name string) (*Pod, error) {
	object, err := c.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if !isReady(object) {
		return nil, fmt.Errorf("it is %s: %v", object.Status.Phase, waiting(object))
	}
	p := &Pod{Namespace: namespace, Name: name, object: object}
	for _, n := range c.nodes {
		if n.Name == object.Spec.NodeName {
			p.Node = n
		}
	}
	for _, ip := range object.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return nil, err
		}
		p.IPs = append(p.IPs, addr)
	}
	return p, nil
}

func waiting(object *corev1.Pod) (reasons []string) {
	for _, s := range object.Status.ContainerStatuses {
		if s.State.Waiting != nil {
			reasons = append(reasons, s.State.Waiting.Reason+" "+s.State.Waiting.Message)
		}
	}
	return reasons
}

// Remove deletes a pod and returns when it is gone.
func (c *Cluster) Remove(ctx context.Context, p *Pod) error {
	now := int64(0)
	if err := c.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name,
		metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		return err
	}
	return Await(ctx, "the end of pod "+p.Name, patience, func(ctx context.Context) error {
		_, err := c.client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is still there"))
	})
}

// Netns opens the network namespace of the pod. The caller must close it.
func (p *Pod) Netns(ctx context.Context) (*own.NS, error) {
	pid, err := p.pid(ctx)
	if err != nil {
		return nil, err
	}
	return own.Open(p.Node.File(filepath.Join("/proc", pid, "ns/net")))
}

// pid returns the number of the first container's process, as the node sees it.
func (p *Pod) pid(ctx context.Context) (string, error) {
	id := strings.TrimPrefix(p.object.Status.ContainerStatuses[0].ContainerID, "containerd://")
	text, err := p.Node.ctr(ctx, "tasks", "list")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == id && f[2] == "RUNNING" {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%s knows no running container %s", p.Node.Name, id)
}

// Connects reports whether a TCP connection from the pod is accepted, asked by a
// program within the pod.
func (c *Cluster) Connects(ctx context.Context, from *Pod, to netip.AddrPort, patience time.Duration) (bool, error) {
	out, err := c.Kubectl(ctx, "", "exec", "-n", from.Namespace, from.Name, "--", "/agnhost", "connect", to.String(),
		"--timeout="+patience.String())
	switch {
	case err == nil:
		return true, nil
	case strings.Contains(out, "TIMEOUT"), strings.Contains(out, "REFUSED"):
		return false, nil
	}
	return false, err
}

// Restarts is how often a container of the pod had been started again when this
// was read.
func (p *Pod) Restarts() (n int32) {
	for _, s := range p.object.Status.ContainerStatuses {
		n += s.RestartCount
	}
	return n
}

// RunWatched is Run, and returns as soon as the API says that the pod is ready.
func (c *Cluster) RunWatched(ctx context.Context, spec *corev1.Pod) (*Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pods := c.client.CoreV1().Pods(spec.Namespace)
	w, err := pods.Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + spec.Name})
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	if _, err := pods.Create(ctx, spec, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	for event := range w.ResultChan() {
		if object, ok := event.Object.(*corev1.Pod); ok && isReady(object) {
			return c.look(ctx, spec.Namespace, spec.Name)
		}
	}
	return nil, fmt.Errorf("pod %s did not become ready: %w", spec.Name, context.Cause(ctx))
}

func isReady(object *corev1.Pod) bool {
	for _, condition := range object.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

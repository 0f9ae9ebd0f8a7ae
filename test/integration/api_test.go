// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// labels reads labels that are written as key=value.
func labels(texts []string) map[string]string {
	m := map[string]string{}
	for _, s := range texts {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}

// createNode makes a Node. It needs two writes, as pods do: the creation drops
// the status.
func (w *world) createNode(name string, ips []netip.Addr) {
	w.t.Helper()
	if _, err := w.api.CoreV1().Nodes().Create(w.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.addressNode(name, ips)
}

// addressNode adds addresses to the status of a Node.
func (w *world) addressNode(name string, ips []netip.Addr) {
	w.t.Helper()
	nodes := w.api.CoreV1().Nodes()
	n, err := nodes.Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range ips {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	if _, err := nodes.UpdateStatus(w.t.Context(), n, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// createNamespace makes a namespace; the server makes "default" by itself.
func (w *world) createNamespace(name string, texts ...string) {
	w.t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels(texts)}}
	_, err := w.api.CoreV1().Namespaces().Create(w.t.Context(), ns, metav1.CreateOptions{})
	if err != nil && !(name == metav1.NamespaceDefault && apierrors.IsAlreadyExists(err)) {
		w.t.Fatal(err)
	}
}

// createPod makes a bound pod and then tells its addresses, as a scheduler and
// a kubelet do.
func (w *world) createPod(name, node string, ips []netip.Addr, texts ...string) {
	w.t.Helper()
	k := key(name)
	pods := w.api.CoreV1().Pods(k.Namespace)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: k.Name, Labels: labels(texts)},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	p, err := pods.Create(w.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	p.Status.Phase, p.Status.PodIP = corev1.PodRunning, ips[0].String()
	for _, a := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	if _, err := pods.UpdateStatus(w.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// deletePod removes a pod from the API at once, as a kubelet does when the
// containers have ended.
func (w *world) deletePod(name string) {
	w.t.Helper()
	now := int64(0)
	k := key(name)
	if err := w.api.CoreV1().Pods(k.Namespace).Delete(w.t.Context(), k.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		w.t.Fatal(err)
	}
}

// labelPod changes the labels of a pod by a merge patch of its metadata.
func (w *world) labelPod(name, patch string) {
	w.t.Helper()
	k := key(name)
	_, err := w.api.CoreV1().Pods(k.Namespace).Patch(w.t.Context(), k.Name, types.MergePatchType, labelPatch(patch), metav1.PatchOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) labelNamespace(name, patch string) {
	w.t.Helper()
	_, err := w.api.CoreV1().Namespaces().Patch(w.t.Context(), name, types.MergePatchType, labelPatch(patch), metav1.PatchOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
}

func labelPatch(patch string) []byte { return []byte(`{"metadata":{"labels":` + patch + `}}`) }

// parsePolicy reads a policy as strictly as the API server can.
func (w *world) parsePolicy(text []byte) *networkingv1.NetworkPolicy {
	w.t.Helper()
	var p networkingv1.NetworkPolicy
	if err := yaml.UnmarshalStrict(text, &p); err != nil {
		w.t.Fatal(err)
	}
	return &p
}

func (w *world) example(name string) *networkingv1.NetworkPolicy {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "examples", "seed", name+".yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.parsePolicy(text)
}

func (w *world) createPolicy(p *networkingv1.NetworkPolicy) {
	w.t.Helper()
	if _, err := w.api.NetworkingV1().NetworkPolicies(p.Namespace).Create(w.t.Context(), p, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) deletePolicy(p *networkingv1.NetworkPolicy) {
	w.t.Helper()
	if err := w.api.NetworkingV1().NetworkPolicies(p.Namespace).Delete(w.t.Context(), p.Name, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// editPolicy changes a stored policy.
func (w *world) editPolicy(name string, change func(*networkingv1.NetworkPolicySpec)) {
	w.t.Helper()
	k := key(name)
	policies := w.api.NetworkingV1().NetworkPolicies(k.Namespace)
	p, err := policies.Get(w.t.Context(), k.Name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	change(&p.Spec)
	if _, err := policies.Update(w.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

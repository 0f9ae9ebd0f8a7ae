// SPDX-License-Identifier: Apache-2.0

//go:build linux

package privilege

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
	"github.com/podwall/podwall/internal/observe"
)

// world is a lab with an API server that knows its nodes, and the manifest's role.
type world struct {
	t      *testing.T
	bed    *lab.Bed
	api    kubernetes.Interface
	config *rest.Config
	m      manifest
}

const serverAddr, serverPort = "172.30.0.1", 6443

// newWorld makes it. Further flags are for the API server.
func newWorld(t *testing.T, wiring lab.Wiring, nodes []string, flags ...string) *world {
	t.Helper()
	w := &world{t: t, m: readManifest(t, manifestFile)}
	var err error
	w.bed, err = lab.NewBed(lab.Config{Wiring: wiring, Nodes: nodes})
	check(t, err)
	t.Cleanup(func() { check(t, w.bed.Close()) })
	at, err := w.bed.AddHost("api", []netip.Addr{netip.MustParseAddr(serverAddr)})
	check(t, err)
	server := kubeapitest.StartWith(t, kubeapi.Options{Netns: at.NS, Bind: at.Addrs[0], Port: serverPort, Profile: kubeapi.Full, Flags: flags})
	w.config, err = server.RESTConfig()
	check(t, err)
	w.api, err = kubernetes.NewForConfig(w.config)
	check(t, err)
	for _, name := range nodes {
		w.createNode(name, w.bed.Node(name).Addrs)
	}
	w.createNamespace(w.m.account.Namespace)
	w.createNamespace("shop")
	w.grant(w.m.account.Name, w.m.role)
	return w
}

// host returns a node on which nothing runs yet.
func (w *world) host(node, account string) *host {
	w.t.Helper()
	h := &host{node: w.bed.Node(node), dir: w.t.TempDir(), api: net.JoinHostPort(serverAddr, fmt.Sprint(serverPort))}
	token, err := w.api.CoreV1().ServiceAccounts(w.m.account.Namespace).CreateToken(w.t.Context(), account,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	check(w.t, err)
	h.account = map[string]string{"token": token.Status.Token, "ca.crt": string(w.config.CAData), "namespace": w.m.account.Namespace}
	return h
}

// grant makes a service account with a role, as the manifest does.
func (w *world) grant(name string, role rbacv1.ClusterRole) {
	w.t.Helper()
	account, binding := w.m.account.DeepCopy(), w.m.binding.DeepCopy()
	account.Name, role.Name, binding.Name, binding.RoleRef.Name = name, name, name, name
	for i := range binding.Subjects {
		binding.Subjects[i].Name = name
	}
	_, err := w.api.CoreV1().ServiceAccounts(account.Namespace).Create(w.t.Context(), account, metav1.CreateOptions{})
	check(w.t, err)
	_, err = w.api.RbacV1().ClusterRoles().Create(w.t.Context(), &role, metav1.CreateOptions{})
	check(w.t, err)
	_, err = w.api.RbacV1().ClusterRoleBindings().Create(w.t.Context(), binding, metav1.CreateOptions{})
	check(w.t, err)
	user := "system:serviceaccount:" + account.Namespace + ":" + name
	kubeapitest.AwaitRights(w.t, w.api, user, "", role.Rules...)
}

func (w *world) createNode(name string, addrs []netip.Addr) {
	w.t.Helper()
	nodes := w.api.CoreV1().Nodes()
	n, err := nodes.Create(w.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	check(w.t, err)
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	_, err = nodes.UpdateStatus(w.t.Context(), n, metav1.UpdateOptions{})
	check(w.t, err)
}

func (w *world) createNamespace(name string) {
	w.t.Helper()
	_, err := w.api.CoreV1().Namespaces().Create(w.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
		metav1.CreateOptions{})
	check(w.t, err)
}

// pod makes a pod of the namespace shop with its name as label app.
func (w *world) pod(name, node string, addrs ...string) *lab.Endpoint {
	w.t.Helper()
	var ips []netip.Addr
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "none"}}}}
	status := corev1.PodStatus{Phase: corev1.PodRunning, PodIP: addrs[0]}
	for _, a := range addrs {
		ips = append(ips, netip.MustParseAddr(a))
		status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: a})
	}
	e, err := w.bed.AddPod(lab.PodSpec{Key: cluster.Key{Namespace: "shop", Name: name}, Node: node, IPs: ips})
	check(w.t, err)
	made, err := w.api.CoreV1().Pods("shop").Create(w.t.Context(), p, metav1.CreateOptions{})
	check(w.t, err)
	made.Status = status
	_, err = w.api.CoreV1().Pods("shop").UpdateStatus(w.t.Context(), made, metav1.UpdateOptions{})
	check(w.t, err)
	return e
}

// admit makes the policy that lets a pod's peers in, and nobody else.
func (w *world) admit(to string, from ...string) {
	w.t.Helper()
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: to, Namespace: "shop"}}
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": to}
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	for _, name := range from {
		peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{peer}})
	}
	_, err := w.api.NetworkingV1().NetworkPolicies("shop").Create(w.t.Context(), p, metav1.CreateOptions{})
	check(w.t, err)
}

// createOddPolicy makes a policy with rules that mean nothing, which is a finding.
func (w *world) createOddPolicy(namespace, name string) {
	w.t.Helper()
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
	_, err := w.api.NetworkingV1().NetworkPolicies(namespace).Create(w.t.Context(), p, metav1.CreateOptions{})
	check(w.t, err)
}

// ready waits until the agent says that it enforces.
func (b *box) ready() *box {
	var why string
	b.Await("readiness", func() bool {
		code, body := b.Get("/readyz")
		why = body
		return code == http.StatusOK
	}, func() string { return why })
	return b
}

// status waits for a status page that has something.
func (b *box) status(t *testing.T, what string, has func(observe.Status) bool) (s observe.Status) {
	t.Helper()
	var body string
	b.Await(what, func() bool {
		_, body = b.Get("/statusz?format=json")
		s = observe.Status{}
		return json.Unmarshal([]byte(body), &s) == nil && has(s)
	}, func() string { return body })
	return s
}

// hasProblem looks for a problem whose text and cure hold the parts.
func hasProblem(s observe.Status, subject string, parts ...string) bool {
	for _, p := range s.Problems {
		all := p.Subject == subject
		for _, part := range parts {
			all = all && strings.Contains(p.Text+" "+p.Cure, part)
		}
		if all {
			return true
		}
	}
	return false
}

// dials reports whether a connection between two pods comes about.
func dials(t *testing.T, from *netns.NS, to string) bool {
	t.Helper()
	c, err := from.Dial(shortly(t), "tcp", to)
	if err == nil {
		_ = c.Close() // nothing was said
	}
	return err == nil
}

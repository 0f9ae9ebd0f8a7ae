// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/complete/kubelet"
)

// shape is the size of a cluster. Its objects follow from it, always the same.
type shape struct {
	nodes, pods, namespaces, policies, services int
	big                                         int // pods of one namespace that is relabelled as a whole
}

const (
	perApp   = 8 // pods that share an app label, as replicas do
	nodeName = "node1"
	httpPort = 8080
)

// addressed is an address of a pod by its number, in a range per purpose. The
// second byte of each is above 127, so that four bytes of a netlink message that
// hold one cannot be the head of an attribute.
func addressed(first [4]byte, i int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(first[:])+uint32(i))
	return netip.AddrFrom4(b)
}

// The ranges: pods of the shape, pods that come and go, pods of the namespaces
// that are relabelled, and addresses that only policies name.
func ofShape(i int) netip.Addr  { return addressed([4]byte{10, 128, 1, 0}, i) }
func ofEvent(i int) netip.Addr  { return addressed([4]byte{10, 192, 1, 0}, i) }
func ofMoved(i int) netip.Addr  { return addressed([4]byte{10, 224, 1, 0}, i) }
func ofPolicy(i int) netip.Addr { return addressed([4]byte{10, 250, 1, 0}, 4*i) }
func ofLocal(i int) netip.Addr  { return addressed([4]byte{10, 251, 1, 0}, i) }

func (s shape) apps() int { return max(1, s.pods/perApp) }

func (s shape) nodeOf(i int) string {
	if i%s.nodes == 0 {
		return nodeName
	}
	return fmt.Sprintf("node-%d", i%s.nodes)
}

func (s shape) namespaceOf(app int) string { return fmt.Sprintf("ns-%d", app%s.namespaces) }

func team(i int) string { return fmt.Sprintf("team-%d", i%10) }
func tier(i int) string { return [...]string{"web", "db", "cache"}[i%3] }

func (s shape) listNamespaces() []*corev1.Namespace {
	list := []*corev1.Namespace{namespace(benchNS, "yes"), namespace(clientNS, "no"), namespace(smallNS, "no"),
		namespace(bigNS, "no")}
	for i := range s.namespaces {
		list = append(list, namespace(fmt.Sprintf("ns-%d", i), team(i)))
	}
	return list
}

func namespace(name, team string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team,
		corev1.LabelMetadataName: name}}}
}

func (s shape) listNodes(own []netip.Addr) []*corev1.Node {
	var list []*corev1.Node
	for i := range s.nodes {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.nodeOf(i)}}
		if i > 0 {
			own = []netip.Addr{addressed([4]byte{172, 31, 0, 1}, i)}
		}
		for _, a := range own {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP,
				Address: a.String()})
		}
		list = append(list, n)
	}
	return list
}

// pod is the i-th of the shape.
func (s shape) pod(i int) *corev1.Pod {
	app := i / perApp % s.apps()
	labels := map[string]string{"app": fmt.Sprintf("app-%d", app), "tier": tier(i),
		"pod-template-hash": fmt.Sprintf("7d9c8b%04x", app)}
	return newPod(s.namespaceOf(app), fmt.Sprintf("app-%d-7d9c8b-%d", app, i), s.nodeOf(i), ofShape(i), labels)
}

// listPods are the pods of the shape and those whose namespace is relabelled,
// which all are on other nodes.
func (s shape) listPods() []*corev1.Pod {
	var list []*corev1.Pod
	for i := range s.pods - s.big {
		list = append(list, s.pod(i))
	}
	for i := range s.big + small {
		ns := bigNS
		if i >= s.big {
			ns = smallNS
		}
		list = append(list, newPod(ns, fmt.Sprintf("moved-%d", i), "node-1", ofMoved(i),
			map[string]string{"app": "moved"}))
	}
	return append(list, newPod(benchNS, "target", nodeName, ofLocal(0), map[string]string{"app": "target"}))
}

// local are the addresses of this node's pods.
func (s shape) local() []netip.Addr {
	var list []netip.Addr
	for i := 0; i < s.pods-s.big; i += s.nodes {
		list = append(list, ofShape(i))
	}
	return append(list, ofLocal(0))
}

// newPod is a running pod with what pods usually carry, about 2 kB: the size is
// what a client reads and throws away.
func newPod(ns, name, node string, ip netip.Addr, labels map[string]string) *corev1.Pod {
	now := metav1.Unix(1_700_000_000, 0)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name,
		UID: types.UID("6f1c2d3e-0000-4000-8000-" + ip.String()), Labels: labels, CreationTimestamp: now}}
	p.Spec = corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{
		Name: "main", Image: "registry.example/team/application:1.2.3", ImagePullPolicy: corev1.PullIfNotPresent,
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: httpPort, Protocol: corev1.ProtocolTCP}},
		Env: []corev1.EnvVar{{Name: "MODE", Value: "production"},
			{Name: "DATABASE", Value: "postgres://db.example:5432/app"}},
		VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount",
			ReadOnly: true}},
	}}, Volumes: []corev1.Volume{
		{Name: "token", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}}
	host := []netip.Addr{netip.AddrFrom4([4]byte{172, 31, 0, 1})} // nobody has it
	if node == nodeName {
		host = complete.FreeNetwork(nil).Node(0)
	}
	kubelet.Run(p, host, []netip.Addr{ip})
	fields := `{"f:metadata":{"f:labels":{".":{},"f:app":{},"f:tier":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:env":{".":{},"k:{\"name\":\"MODE\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:name":{},"f:protocol":{}}}}}}}`
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kube-controller-manager",
		Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &now,
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}}
	return p
}

// listPolicies are those of the shape, each for the pods of one app, and those
// that the measured changes are about.
func (s shape) listPolicies() []*networkingv1.NetworkPolicy {
	list := []*networkingv1.NetworkPolicy{
		policyFor(benchNS, "from-clients", "target",
			ingress(networkingv1.NetworkPolicyPeer{NamespaceSelector: labelled(corev1.LabelMetadataName, clientNS),
				PodSelector: labelled("role", "client")})),
		policyFor(benchNS, "from-moved", "target",
			ingress(networkingv1.NetworkPolicyPeer{NamespaceSelector: labelled("team", "moved")})),
	}
	for i := range s.policies {
		app := i % s.apps()
		list = append(list, policyFor(s.namespaceOf(app), fmt.Sprintf("np-%d", i), fmt.Sprintf("app-%d", app),
			shapeRule(i)))
	}
	return list
}

// shapeRule takes turns: pods of a team's tier, the own namespace, a tier
// everywhere, a network.
func shapeRule(i int) networkingv1.NetworkPolicyIngressRule {
	switch i % 4 {
	case 0:
		return ingress(networkingv1.NetworkPolicyPeer{NamespaceSelector: labelled("team", team(i/4)),
			PodSelector: labelled("tier", "web")})
	case 1:
		return ingress(networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}})
	case 2:
		return ingress(networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{},
			PodSelector: labelled("tier", tier(i/4))})
	}
	return ingress(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("172.%d.%d.0/24",
		16+i/256%16, i%256)}})
}

func labelled(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func ingress(from networkingv1.NetworkPolicyPeer) networkingv1.NetworkPolicyIngressRule {
	port := intstr.FromString("http")
	return networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{from},
		Ports: []networkingv1.NetworkPolicyPort{{Port: &port}}}
}

func policyFor(ns, name, app string, rule networkingv1.NetworkPolicyIngressRule) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *labelled("app", app),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{rule},
		}}
}

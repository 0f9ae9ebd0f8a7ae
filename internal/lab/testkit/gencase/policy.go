// SPDX-License-Identifier: Apache-2.0

package gencase

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
)

// audited is the name of the policies in audit mode: one of the names, not one more thing that is drawn,
// so that the other cases stay as they are.
const audited = "r"

// setPolicy adds a policy, or replaces the one of the same name. Its blocks lie
// around the addresses of this world.
func (w *world) setPolicy(t *rapid.T) {
	p := gen.APIPolicy(t)
	p.Namespace, p.Name = w.namespace(t), pick(t, "policy", objectNames()...)
	if one := w.pods[w.anyPod(t)]; !rarely(t, "any namespace", 5) { // else most policies would meet no pod
		p.Namespace = one.Namespace
	}
	if p.Name == audited {
		p.Annotations = map[string]string{cluster.ModeAnnotation: cluster.ModeAudit}
	}
	for i := range p.Spec.Ingress {
		r := &p.Spec.Ingress[i]
		r.From, r.Ports = w.peers(t, r.From), w.ports(t, r.Ports)
	}
	for i := range p.Spec.Egress {
		r := &p.Spec.Egress[i]
		r.To, r.Ports = w.peers(t, r.To), w.ports(t, r.Ports)
	}
	w.policies = slices.DeleteFunc(w.policies, func(o networkingv1.NetworkPolicy) bool {
		return o.Namespace == p.Namespace && o.Name == p.Name
	})
	w.policies = append(w.policies, *p)
}

// peers puts the blocks where the endpoints are. A rule for everybody mostly
// becomes one for somebody: it would hide what all the others say.
func (w *world) peers(t *rapid.T, list []networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyPeer {
	if len(list) == 0 {
		switch pick(t, "instead of everybody", "nothing", "block", "pod", "pod") {
		case "block":
			return []networkingv1.NetworkPolicyPeer{{IPBlock: w.block(t)}}
		case "pod":
			return []networkingv1.NetworkPolicyPeer{w.like(t)}
		}
	}
	for i := range list {
		if list[i].IPBlock != nil {
			list[i].IPBlock = w.block(t)
		}
	}
	return list
}

// like returns a peer that selects a pod which exists, and others like it.
func (w *world) like(t *rapid.T) (p networkingv1.NetworkPolicyPeer) {
	pod := w.pods[w.anyPod(t)]
	p.PodSelector = &metav1.LabelSelector{MatchLabels: pod.Labels}
	if rapid.Bool().Draw(t, "only by one label") {
		key := pick(t, "by label", "app", "tier", "team")
		if value, ok := pod.Labels[key]; ok {
			p.PodSelector = &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
		}
	}
	switch pick(t, "by namespace", "own", "all", "name", "labels") {
	case "all":
		p.NamespaceSelector = &metav1.LabelSelector{}
	case "name":
		p.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{
			corev1.LabelMetadataName: pod.Namespace}}
	case "labels":
		p.NamespaceSelector = &metav1.LabelSelector{MatchLabels: w.namespaceLabels(pod.Namespace)}
	}
	return p
}

// namespaceLabels are the labels beside the one that the API server adds.
func (w *world) namespaceLabels(name string) map[string]string {
	m := map[string]string{}
	for _, n := range w.namespaces {
		if n.Name == name {
			maps.Copy(m, n.Labels)
		}
	}
	delete(m, corev1.LabelMetadataName)
	return m
}

// ports lets the peers alone decide about some rules, and ranges or names that
// pods have about others.
func (w *world) ports(t *rapid.T, list []networkingv1.NetworkPolicyPort) []networkingv1.NetworkPolicyPort {
	switch pick(t, "ports instead", "as they are", "as they are", "all", "all", "name", "name", "and a range") {
	case "all":
		return nil
	case "name":
		return w.named(t, list)
	case "and a range":
		first := intstr.FromInt32(int32(pick(t, "first port", portNumbers()...)))
		last := first.IntVal + int32(rapid.IntRange(0, 3).Draw(t, "more ports"))
		protocol := corev1.Protocol(pick(t, "range protocol", protocols()...))
		return append(list, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &first, EndPort: &last})
	}
	return list
}

// named returns a name that some pod has, or the list if the pod has none.
func (w *world) named(t *rapid.T, list []networkingv1.NetworkPolicyPort) []networkingv1.NetworkPolicyPort {
	pod := w.pods[w.anyPod(t)]
	if len(pod.Ports) == 0 {
		return list
	}
	c := pod.Ports[rapid.IntRange(0, len(pod.Ports)-1).Draw(t, "which port")]
	if c.Name == "" {
		return list
	}
	name, protocol := intstr.FromString(c.Name), corev1.Protocol(c.Protocol)
	return []networkingv1.NetworkPolicyPort{{Protocol: &protocol, Port: &name}}
}

// block returns a block around one or more endpoints, with holes inside,
// outside, larger than the block, and now and then what cannot be understood.
func (w *world) block(t *rapid.T) *networkingv1.IPBlock {
	fam := pick(t, "block family", w.families...)
	if rarely(t, "other family", 12) {
		fam = pick(t, "any family", v4, v6)
	}
	cidr := w.prefix(t, fam)
	b := &networkingv1.IPBlock{CIDR: cidr.String()}
	for range pick(t, "excepts", 0, 0, 1, 1, 2, 4) {
		b.Except = append(b.Except, w.except(t, cidr).String())
	}
	if rarely(t, "bad block", 40) {
		b.CIDR = pick(t, "bad cidr", "10.0.0.01/8", "10.0.0.0/33", "10.0.0.0", "::ffff:10.0.0.0/104", "fd10::/129", "")
	}
	return b
}

// except returns a hole: mostly one around an endpoint inside the block.
func (w *world) except(t *rapid.T, cidr netip.Prefix) netip.Prefix {
	fam := family(cidr.Addr())
	if rarely(t, "hole of another family", 30) {
		fam = pick(t, "hole family", v4, v6)
	}
	e := w.prefix(t, fam)
	inside := slices.DeleteFunc(w.places(fam), func(a netip.Addr) bool { return !cidr.Contains(a) })
	if len(inside) == 0 || rarely(t, "hole anywhere", 4) {
		return e
	}
	a := inside[rapid.IntRange(0, len(inside)-1).Draw(t, "hole around")]
	return netip.PrefixFrom(a, max(e.Bits(), min(cidr.Bits()+1, a.BitLen())))
}

// prefix returns a prefix around an address that somebody has or might have;
// its host bits often stay.
func (w *world) prefix(t *rapid.T, fam string) netip.Prefix {
	list := w.places(fam)
	a := list[rapid.IntRange(0, len(list)-1).Draw(t, "around")]
	bits := pick(t, "bits", 32, 31, 30, 29, 28, 25, 24, 23, 16, 8, 1, 0)
	if fam == v6 {
		bits = pick(t, "bits", 128, 127, 126, 125, 124, 120, 64, 63, 48, 16, 1, 0)
	}
	p := netip.PrefixFrom(a, bits)
	if rapid.Bool().Draw(t, "canonical") {
		p = p.Masked()
	}
	return p
}

// places are the addresses of a family that blocks are put around.
func (w *world) places(fam string) []netip.Addr {
	var list []netip.Addr
	for n := range pairs {
		list = append(list, podAddrs(n)...)
	}
	for n := range nodes() {
		list = append(list, nodeAddrs(n)...)
	}
	for _, e := range outside() {
		list = append(list, e.Addrs()...)
	}
	for _, p := range w.pods { // more often: these are asked about
		list = append(list, slices.Repeat(p.Addrs(), 3)...)
	}
	return slices.DeleteFunc(list, func(a netip.Addr) bool { return family(a) != fam })
}

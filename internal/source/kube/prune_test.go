// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
)

// fullPod has every field that decides something, and many that do not. Each
// of the former is there or not, by chance.
func fullPod(r *rand.Rand) *corev1.Pod {
	now, always := metav1.NewTime(time.Unix(1_700_000_000, 0)), corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "shop", UID: "u", ResourceVersion: "7", GenerateName: "web-",
		Generation: 3, CreationTimestamp: now, Finalizers: []string{"f"}, OwnerReferences: []metav1.OwnerReference{{Name: "web"}},
		Annotations:   map[string]string{"note": strings.Repeat("x", 3000)},
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{}}`)}}}}
	container := corev1.Container{Name: "main", Image: "image", Env: []corev1.EnvVar{{Name: "MODE", Value: "x"}}, Command: []string{"run"}}
	p.Spec.Volumes, p.Spec.NodeSelector = []corev1.Volume{{Name: "token"}}, map[string]string{"a": "b"}
	p.Spec.Containers = append(p.Spec.Containers, container, container)
	p.Status.Conditions, p.Status.HostIP, p.Status.Message = []corev1.PodCondition{{Type: corev1.PodReady}}, "172.31.0.1", "fine"
	ports := []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}}
	for _, set := range []func(){
		func() { p.UID = "" },
		func() { p.Labels = map[string]string{"app": "web", "tier": ""} },
		func() { p.DeletionTimestamp = &now },
		func() { p.Annotations[corev1.MirrorPodAnnotationKey] = "static" },
		func() { p.Spec.NodeName = "n1" },
		func() { p.Spec.HostNetwork = true },
		func() { p.Spec.Containers[1].Ports = ports },
		func() {
			p.Spec.InitContainers = []corev1.Container{{Name: "proxy", RestartPolicy: &always, Ports: ports[1:]}}
		},
		func() { p.Status.Phase = corev1.PodFailed },
		func() { p.Status.PodIP = "10.0.0.1" },
		func() { p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}} },
	} {
		if r.IntN(2) == 0 {
			set()
		}
	}
	return p
}

func TestAPrunedPodIsConvertedAsTheWholePod(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		p := fullPod(r)
		if i%3 == 0 {
			p.Annotations[cluster.ExtraAnnotation] = "10.0.0.7, 52:54:00:00:00:01"
		}
		p.UID = types.UID(fmt.Sprint(i))
		message, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var pruned prunedPod
		if err := pruned.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(convert.Pod(p), convert.Pod(&pruned.Pod), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Fatalf("pod (-whole +pruned):\n%s", diff)
		}
		if pruned.ResourceVersion != "7" || pruned.ManagedFields != nil || pruned.Spec.Volumes != nil || pruned.Spec.Containers[0].Name != "" || pruned.Annotations["note"] != "" {
			t.Fatalf("kept is %+v", pruned.Pod)
		}
	}
}

// A Node keeps its name and its addresses, of ten kilobytes.
func TestAPrunedNodeIsConvertedAsTheWholeNode(t *testing.T) {
	n := nodeObject("n1", "192.0.2.1")
	n.ResourceVersion, n.Labels = "7", map[string]string{"zone": "a", corev1.LabelTopologyZone: "b"}
	n.DeletionTimestamp = &metav1.Time{Time: time.Unix(1_700_000_000, 0)}
	n.Annotations = map[string]string{"note": strings.Repeat("x", 3000), metav1.InitialEventsAnnotationKey: "true"}
	n.Spec = corev1.NodeSpec{PodCIDR: "10.0.0.0/24", PodCIDRs: []string{"10.0.0.0/24", "fd00::/64"}, ProviderID: "p",
		Taints: []corev1.Taint{{Key: "x"}, {Key: convert.TaintToBeDeleted, Value: "1"}}}
	n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: "2001:db8::1"})
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}}
	for range 50 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{strings.Repeat("image", 20), "v1"}})
	}
	message, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var pruned prunedNode
	if err := pruned.Unmarshal(message); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(convert.Node(n), convert.Node(&pruned.Node), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("node (-whole +pruned):\n%s", diff)
	}
	if pruned.ResourceVersion != "7" || pruned.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("kept is %+v, and a watch needs more", pruned.ObjectMeta)
	}
	if len(pruned.Labels) != 1 || len(pruned.Spec.Taints) != 1 || pruned.Spec.ProviderID != "" ||
		pruned.Status.Conditions != nil || pruned.Status.Images != nil {
		t.Errorf("kept is %+v", pruned.Node)
	}
	allocs := testing.AllocsPerRun(100, func() {
		var p prunedNode
		if err := p.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 40 { // a whole one with images takes hundreds
		t.Errorf("decoding a heartbeat makes %.0f objects", allocs)
	}
}

func TestTheEndOfAListIsKnownOfAPrunedPod(t *testing.T) {
	message, err := endOfList().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var p prunedPod
	if err := p.Unmarshal(message); err != nil || p.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
		t.Errorf("kept is %+v, %v", p.Pod, err)
	}
}

// FuzzPrune looks for messages that pruning breaks: what upstream reads must be
// read the same, and what it refuses may be refused or be left out.
func FuzzPrune(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		if message, err := fullPod(r).Marshal(); err == nil {
			f.Add(message)
		}
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var whole corev1.Pod
		if whole.Unmarshal(message) != nil {
			_ = new(prunedPod).Unmarshal(message) // must not panic
			return
		}
		var pruned prunedPod
		if err := pruned.Unmarshal(message); err != nil {
			t.Fatalf("upstream reads it, pruning says %v", err)
		}
		if diff := cmp.Diff(convert.Pod(&whole), convert.Pod(&pruned.Pod), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("pod (-whole +pruned):\n%s", diff)
		}
	})
}

// Each field that a Node is reduced to survives pruning by itself.
func TestEveryFieldOfANodeIsKept(t *testing.T) {
	for name, set := range map[string]func(*corev1.Node){
		"the only range": func(n *corev1.Node) { n.Spec.PodCIDR = "10.0.0.0/24" },
		"all ranges":     func(n *corev1.Node) { n.Spec.PodCIDRs = []string{"10.0.1.0/24", "fd00::/64"} },
		"the zone":       func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelTopologyZone: "z"} },
		"the taint":      func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: convert.TaintToBeDeleted}} },
		"the end":        func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: time.Unix(1_700_000_000, 0)} },
	} {
		n, plain := nodeObject("n1", "192.0.2.1"), convert.Node(nodeObject("n1", "192.0.2.1"))
		set(n)
		message, err := n.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var pruned prunedNode
		if err := pruned.Unmarshal(message); err != nil {
			t.Fatal(err)
		}
		if got := convert.Node(&pruned.Node); !got.Equal(convert.Node(n)) || got.Equal(plain) {
			t.Errorf("of %s stays %+v", name, got)
		}
	}
}

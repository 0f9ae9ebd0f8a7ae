// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/complete"
	"github.com/podwall/podwall/internal/complete/kubelet"
	"github.com/podwall/podwall/internal/lab"
)

const (
	namespace = "bench"
	port      = 80
	// localOthers are pods of each node that are objects only: policies select
	// them.
	localOthers = 30
	perNode     = 100
)

// shape is what a cluster holds beside the pods that packets run between.
type shape struct {
	pods     int // that the policies' peers select
	policies int // on pods of each node, at least 1
	onPod    int // on the pod that is called, at least 1
	cidrs    int // instead of pods as peers
	v6       bool
}

// The pods that packets run between: both ends of a node, and one of another.
func podKey(name string) cluster.Key { return cluster.Key{Namespace: namespace, Name: name} }

func realPods() []lab.PodSpec {
	pod := func(name, node, v4, v6 string) lab.PodSpec {
		return lab.PodSpec{Key: podKey(name), Node: node, IPs: []netip.Addr{netip.MustParseAddr(v4),
			netip.MustParseAddr(v6)}}
	}
	return []lab.PodSpec{
		pod("client", "node1", "10.244.1.5", "fd00:244:1::5"),
		pod("near", "node1", "10.244.1.6", "fd00:244:1::6"),
		pod("closed", "node1", "10.244.1.7", "fd00:244:1::7"),
		pod("far", "node2", "10.244.2.5", "fd00:244:2::5"),
	}
}

// manifests are the nodes and all objects as the agents read them.
func (s shape) manifests(bed *lab.Bed) ([]byte, error) {
	objects, err := s.objects()
	var b bytes.Buffer
	fmt.Fprintf(&b, "{apiVersion: v1, kind: Namespace, metadata: {name: %s}}\n", namespace)
	b.Write(nodeObjects(bed))
	b.WriteString("---\n")
	b.Write(objects)
	return b.Bytes(), err
}

// objects are the pods and policies.
func (s shape) objects() ([]byte, error) {
	var b bytes.Buffer
	for _, p := range s.list() {
		text, err := json.Marshal(p) // JSON is YAML too and read faster
		if err != nil {
			return nil, fmt.Errorf("writing pod %s: %w", p.Name, err)
		}
		b.WriteString("---\n")
		b.Write(append(text, '\n'))
	}
	s.writePolicies(&b)
	return bytes.TrimPrefix(b.Bytes(), []byte("---\n")), nil
}

// list are the pods: those that packets run between, others of the same nodes, and
// those of nodes that are a name only.
func (s shape) list() []*corev1.Pod {
	var list []*corev1.Pod
	for _, p := range realPods() {
		app := map[string]string{"client": "client", "closed": "closed"}[p.Key.Name]
		if app == "" {
			app = "server"
		}
		list = append(list, newPod(p.Key.Name, p.Node, app, realAddrs(p.Node), p.IPs))
	}
	for i := range localOthers {
		for n, node := range nodeNames() {
			list = append(list, newPod(fmt.Sprintf("other-%d-%d", n, i), node, fmt.Sprintf("other-%d", i),
				realAddrs(node), s.addrs(1<<20+n<<8+i)))
		}
	}
	for i := range s.pods {
		n := i / perNode
		nobodys := []netip.Addr{netip.AddrFrom4([4]byte{172, 31, byte(n >> 8), byte(n)})}
		list = append(list, newPod(fmt.Sprintf("peer-%d", i), fmt.Sprintf("elsewhere-%d", n), "none", nobodys,
			s.addrs(i)))
	}
	return list
}

// realAddrs are the addresses of a node of the bed.
func realAddrs(node string) []netip.Addr {
	return complete.FreeNetwork(nil).Node(slices.Index(nodeNames(), node))
}

// newPod is a pod that runs; host are the addresses of its node.
func newPod(name, node, app string, host, addrs []netip.Addr) *corev1.Pod {
	p := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name,
			Labels: map[string]string{"tier": "peer", "app": app}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "c"}}}}
	kubelet.Run(p, host, addrs)
	return p
}

// nodeObjects are the nodes, each after the end of another document.
func nodeObjects(bed *lab.Bed) []byte {
	var b bytes.Buffer
	for _, name := range nodeNames() {
		var addrs []string
		for _, a := range bed.Node(name).Addrs {
			addrs = append(addrs, fmt.Sprintf("{type: InternalIP, address: %q}", a))
		}
		fmt.Fprintf(&b, "---\n{apiVersion: v1, kind: Node, metadata: {name: %s}, status: {addresses: [%s]}}\n", name,
			strings.Join(addrs, ","))
	}
	return b.Bytes()
}

// addrs are those of a pod that is an object only.
func (s shape) addrs(i int) []netip.Addr {
	list := []netip.Addr{netip.AddrFrom4([4]byte{10, byte(128 + i>>16), byte(i >> 8), byte(i)})}
	if s.v6 {
		list = append(list, netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x01, 13: byte(i >> 16), 14: byte(i >> 8),
			15: byte(i)}))
	}
	return list
}

const (
	anyPeer  = `[{podSelector: {matchLabels: {tier: peer}}}]`
	callable = `[{port: 80}, {port: 80, protocol: UDP}]`
)

// writePolicies isolates the client for egress, and those whom it calls for
// ingress, with three rules as in the reference setup; the last one matches.
func (s shape) writePolicies(b *bytes.Buffer) {
	rules := func(direction, peers string) string {
		return fmt.Sprintf(`[{%[1]s: %[2]s, ports: [{port: 9090}]}, {%[1]s: %[2]s, ports: [{port: 8080}]}, `+
			`{%[1]s: %[2]s, ports: %[3]s}]`, direction, peers, callable)
	}
	writePolicy(b, "client", "client", `policyTypes: [Egress], egress: `+rules("to", anyPeer))
	writePolicy(b, "server", "server", `policyTypes: [Ingress], ingress: `+rules("from", s.peers()))
	writePolicy(b, "closed", "closed", `policyTypes: [Ingress]`)
	for i := 1; i < s.policies; i++ {
		writePolicy(b, fmt.Sprintf("other-%d", i), fmt.Sprintf("other-%d", i%localOthers),
			fmt.Sprintf(`policyTypes: [Ingress], ingress: [{from: %s, ports: [{port: %d}]}]`, anyPeer, 10000+i))
	}
	for i := 1; i < s.onPod; i++ {
		writePolicy(b, fmt.Sprintf("also-%d", i), "server",
			fmt.Sprintf(`policyTypes: [Ingress], ingress: [{from: %s, ports: [{port: %d}]}]`, anyPeer, 20000+i))
	}
}

func (s shape) peers() string {
	if s.cidrs == 0 {
		return anyPeer
	}
	list := []string{`{ipBlock: {cidr: 10.244.1.0/24}}`}
	for i := range s.cidrs - 1 {
		list = append(list, fmt.Sprintf("{ipBlock: {cidr: 20.%d.%d.0/25}}", i>>8, i&0xff))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func writePolicy(b *bytes.Buffer, name, app, rest string) {
	fmt.Fprintf(b, "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: "+
		"%s}, spec: {podSelector: {matchLabels: {app: %s}}, %s}}\n",
		name, namespace, app, rest)
}

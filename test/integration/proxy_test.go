// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/lab/packet"
)

// kubeProxyProgram returns upstream's kube-proxy, after a look for the
// programs that it calls.
func kubeProxyProgram(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"nft", "iptables-restore", "ip6tables-restore"} {
		if _, err := exec.LookPath(name); err != nil {
			lacking(t, fmt.Sprintf("kube-proxy needs %s: run `make prepare`", name))
		}
	}
	return program(t, "kube-proxy", "PODWALL_KUBE_PROXY", "make kubeapi")
}

// kubeProxyConfig is a usual one, but that limits of connection tracking stay
// as they are: they belong to the machine, not to a namespace. The defaults
// would have kube-proxy end here.
const kubeProxyConfig = `
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
hostnameOverride: %s
clientConnection: {kubeconfig: %s}
detectLocalMode: ClusterCIDR
clusterCIDR: 10.244.0.0/16,fd00:244::/32
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
oomScoreAdj: 0
`

// kubeProxy starts the real kube-proxy in a node and returns when its rules
// are in the kernel. It ends with the test.
func (w *world) kubeProxy(node, mode string) *agent {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "kube-proxy.yaml")
	text := fmt.Sprintf(kubeProxyConfig, mode, node, w.server.Kubeconfig)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(kubeProxyProgram(w.t), "--config="+file, "-v=4")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	p := start(w.t, w.bed.Node(node).NS, "kube-proxy of "+node, cmd)
	w.t.Cleanup(func() {
		select {
		case <-p.Ended():
		default:
			p.Kill()
		}
	})
	p.await("rules of both families", p.synced)
	return p
}

// synced reports whether kube-proxy has written its rules once, by its own
// account, which IPVS mode gives at -v=4 only. Its /healthz is content before
// that, and asking for its metrics fills the log.
func (a *agent) synced() bool {
	text := a.Log()
	for _, family := range []string{"IPv4", "IPv6"} {
		if !strings.Contains(text, `yncProxyRules complete" ipFamily="`+family+`"`) {
			return false
		}
	}
	return true
}

// service is what the test needs of a Service with one pod behind it: its two
// addresses, and the ports that each node opens for it.
type service struct {
	name   string
	addrs  []netip.Addr
	ports  []servicePort
	policy corev1.ServiceExternalTrafficPolicy
}

// servicePort leads from a port of the Service, and one of every node, to a
// port of the pod.
type servicePort struct {
	name                 string
	proto                packet.Protocol
	front, onNode, atPod uint16
}

// anywhere may be entered at any node, and hides the client's address then.
func anywhere() service {
	return service{"anywhere", addrs("10.96.0.10", "fd96::10"), []servicePort{
		{"web", packet.TCP, 80, 30080, 8080}, {"dns", packet.UDP, 53, 30053, 5353},
	}, corev1.ServiceExternalTrafficPolicyCluster}
}

// onlyHere may be entered from outside at the pod's node only, and never hides
// the client's address.
func onlyHere() service {
	return service{"only-here", addrs("10.96.0.11", "fd96::11"), []servicePort{
		{"web", packet.TCP, 80, 30081, 8080}, {"dns", packet.UDP, 53, 30054, 5353},
	}, corev1.ServiceExternalTrafficPolicyLocal}
}

// createService makes a Service, and by hand what a controller would make of
// it: a slice of its one endpoint for each family.
func (w *world) createService(s service, pod string) {
	w.t.Helper()
	both := corev1.IPFamilyPolicyRequireDualStack
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: s.name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, ExternalTrafficPolicy: s.policy, IPFamilyPolicy: &both,
		IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
	}}
	for _, a := range s.addrs {
		svc.Spec.ClusterIPs = append(svc.Spec.ClusterIPs, a.String())
	}
	svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	for _, p := range s.ports {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: p.name, Protocol: p.protocol(),
			Port: int32(p.front), NodePort: int32(p.onNode), TargetPort: intstr.FromInt32(int32(p.atPod))})
	}
	k := key(pod)
	if _, err := w.api.CoreV1().Services(k.Namespace).Create(w.t.Context(), svc, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	e := w.bed.Pod(k)
	for _, a := range e.Addrs {
		_, err := w.api.DiscoveryV1().EndpointSlices(k.Namespace).Create(w.t.Context(), s.slice(e.Node, a), metav1.CreateOptions{})
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (p servicePort) protocol() corev1.Protocol {
	return corev1.Protocol(strings.ToUpper(p.proto.String()))
}

func (s service) slice(node string, a netip.Addr) *discoveryv1.EndpointSlice {
	family := discoveryv1.AddressTypeIPv4
	if a.Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	ready := true
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   s.name + "-" + strings.ToLower(string(family)),
			Labels: map[string]string{discoveryv1.LabelServiceName: s.name},
		},
		AddressType: family,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{a.String()}, NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		}},
	}
	for _, p := range s.ports {
		port, protocol := int32(p.atPod), p.protocol()
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &p.name, Port: &port, Protocol: &protocol})
	}
	return slice
}

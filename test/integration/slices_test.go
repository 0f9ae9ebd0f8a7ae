// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
)

// controllers starts upstream's controller manager with the one controller that makes
// EndpointSlices of Services and pods. It ends with the test.
func (w *world) controllers() {
	w.t.Helper()
	cmd := exec.Command(program(w.t, "kube", "PODWALL_KUBE", "make kube"), "kube-controller-manager",
		"--kubeconfig="+w.server.Kubeconfig, "--controllers=endpointslice-controller", "--leader-elect=false",
		"--secure-port=0")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	for _, e := range w.bed.Endpoints() {
		if e.Name == serverName {
			p := start(w.t, e.NS, "controller manager", cmd)
			w.t.Cleanup(p.Kill)
		}
	}
}

// selecting makes a dual-stack NodePort Service of TCP port 80 over the pods of an app.
func (w *world) selecting(name string, addrs []netip.Addr, nodePort int32, change func(*corev1.ServiceSpec)) {
	w.t.Helper()
	both := corev1.IPFamilyPolicyRequireDualStack
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeNodePort, IPFamilyPolicy: &both, Selector: map[string]string{"app": "web"},
		IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, ClusterIP: addrs[0].String(),
		Ports: []corev1.ServicePort{{Port: 80, NodePort: nodePort, TargetPort: intstr.FromInt32(8080)}}}}
	for _, a := range addrs {
		s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, a.String())
	}
	if change != nil {
		change(&s.Spec)
	}
	if _, err := w.api.CoreV1().Services("default").Create(w.t.Context(), s, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// readiness says in the API whether a pod is ready, as a kubelet does after its probe.
func (w *world) readiness(name string, ready corev1.ConditionStatus) {
	w.t.Helper()
	k := key(name)
	pods := w.api.CoreV1().Pods(k.Namespace)
	p, err := pods.Get(w.t.Context(), k.Name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	if _, err := pods.UpdateStatus(w.t.Context(), p, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// ending begins the deletion of a pod, which goes on to run.
func (w *world) ending(name string) {
	w.t.Helper()
	k, grace := key(name), int64(300)
	err := w.api.CoreV1().Pods(k.Namespace).Delete(w.t.Context(), k.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace})
	if err != nil {
		w.t.Fatal(err)
	}
}

// met calls an address again and again, each time by a new connection, and returns where the first packets
// arrived, and how many arrived nowhere.
func (w *world) met(from string, to netip.AddrPort) (places []string, lost int) {
	w.t.Helper()
	const times = 20
	var batch []probe.Probe
	var ids []uint32
	for range times {
		p := probe.Probe{ID: w.prober.NextID(), From: from, Proto: packet.TCP, Dst: to.Addr(), SrcPort: w.nextPort(),
			DstPort: to.Port()}
		batch, ids = append(batch, p), append(ids, p.ID)
	}
	if err := w.prober.Send(batch); err != nil {
		w.t.Fatal(err)
	}
	out, err := w.prober.Collect(w.t.Context(), ids, nil, time.Now().Add(slowly(300*time.Millisecond)))
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]bool{}
	for _, id := range ids {
		for _, a := range w.prober.Arrived(id) {
			found[a.Endpoint] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), len(out.Missing)
}

// leads waits until calls arrive at each of some pods and nowhere else; at no pod if there are none.
func (w *world) leads(what, from string, to []netip.AddrPort, want ...string) {
	w.t.Helper()
	slices.Sort(want)
	for _, at := range to {
		began := time.Now()
		for {
			places, lost := w.met(from, at)
			if slices.Equal(places, want) && (lost == 0) == (len(want) > 0) {
				break
			}
			if time.Since(began) > patience {
				w.t.Fatalf("%s: %s calls %s and meets %v, %d calls nobody; want each of %v", what, from, at, places, lost, want)
			}
		}
	}
}

// refused waits until calls are refused at once: TCP with a reset, UDP with an error. A pod that policies know no
// more can still be led to, for a moment.
func (w *world) refused(from string, to []netip.AddrPort) {
	w.t.Helper()
	for _, at := range to {
		for _, proto := range []packet.Protocol{packet.TCP, packet.UDP} {
			for began := time.Now(); !w.refuses(from, at, proto); {
				if time.Since(began) > patience {
					w.t.Fatalf("%s calls %s by %s and is not refused", from, at, proto)
				}
			}
		}
	}
}

// refuses calls once and reports whether a refusal is the answer.
func (w *world) refuses(from string, at netip.AddrPort, proto packet.Protocol) bool {
	w.t.Helper()
	p := probe.Probe{ID: w.prober.NextID(), From: from, Proto: proto, Dst: at.Addr(), SrcPort: w.nextPort(),
		DstPort: at.Port()}
	if err := w.prober.Send([]probe.Probe{p}); err != nil {
		w.t.Fatal(err)
	}
	for end := time.Now().Add(slowly(time.Second)); len(w.prober.Replies(p.ID)) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	list := w.prober.Replies(p.ID)
	return len(list) == 1 && list[0].Kind == probe.Refused
}

// denyIngressOf isolates the pods of an app.
func (w *world) denyIngressOf(app string) {
	w.t.Helper()
	w.createPolicy(w.parsePolicy([]byte(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy,
  metadata: {name: closed, namespace: default}, spec: {podSelector: {matchLabels: {app: ` + app + `}}, policyTypes: [Ingress]}}`)))
}

func atPort(list []netip.Addr, port uint16) (to []netip.AddrPort) {
	for _, a := range list {
		to = append(to, netip.AddrPortFrom(a, port))
	}
	return to
}

// The slices are those that upstream's controller makes, of the conditions of pods: which are ready, which are
// ending, which are gone.
func TestServicesFollowPodsByTheControllersSlices(t *testing.T) {
	program(t, "kube", "PODWALL_KUBE", "make kube") // skips before anything is built
	w := newWorld(t, lab.Routed, "node1", "node2")
	w.controllers()
	w.createNamespace("default")
	w.rangesOfPods()
	w.host("outside", "93.184.216.34", "2001:db8:cafe::1")
	w.pod("default/caller", "node1", addrs("10.244.1.9", "fd00:244:1::9"), "app=caller")
	for i, node := range []string{"node1", "node2", "node2"} {
		at := node[len(node)-1:]
		w.pod(fmt.Sprint("default/web", i), node, addrs(fmt.Sprintf("10.244.%s.%d", at, 20+i),
			fmt.Sprintf("fd00:244:%s::%d", at, 20+i)), "app=web")
	}
	every := addrs("10.96.0.20", "fd96::20")
	w.selecting("web", every, 30080, nil)
	w.selecting("sticky", addrs("10.96.0.21", "fd96::21"), 30081, func(s *corev1.ServiceSpec) {
		s.SessionAffinity = corev1.ServiceAffinityClientIP
	})
	w.selecting("local", addrs("10.96.0.22", "fd96::22"), 30082, func(s *corev1.ServiceSpec) {
		s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	})
	node1, node2 := w.bed.Node("node1").Addrs, w.bed.Node("node2").Addrs
	first, second := w.agent("node1", serving()...).ready(), w.agent("node2", serving()...).ready()

	const caller, outside = "default/caller", "outside"
	web := atPort(every, 80)
	w.leads("no pod is ready", caller, web)
	w.refused(caller, web)
	w.refused(outside, atPort(node1, 30080))
	w.readiness("default/web0", corev1.ConditionTrue)
	w.leads("one pod is ready", caller, web, "default/web0")
	w.leads("one pod is ready", outside, atPort(node2, 30080), "default/web0")
	w.leads("the pod is on the other node", outside, atPort(node2, 30082))
	w.leads("the pod is on this node", outside, atPort(node1, 30082), "default/web0")
	w.readiness("default/web1", corev1.ConditionTrue)
	w.leads("two pods are ready", caller, web, "default/web0", "default/web1")
	w.leads("the second pod is on this node", outside, atPort(node2, 30082), "default/web1")
	w.keepsToOne(caller, atPort(addrs("10.96.0.21", "fd96::21"), 80))

	calls := w.serviceStream(caller, every)
	w.readiness("default/web2", corev1.ConditionTrue)
	w.leads("another pod comes", caller, web, "default/web0", "default/web1", "default/web2")
	w.ending("default/web1")
	w.leads("the pod that it replaces ends", caller, web, "default/web0", "default/web2")
	w.readiness("default/web1", corev1.ConditionFalse)
	w.deletePod("default/web1")
	calls.goOn(50)
	w.ending("default/web0")
	w.ending("default/web2")
	w.leads("all pods end and still answer", caller, web, "default/web0", "default/web2")
	calls.goOn(50)
	calls.stop()
	w.readiness("default/web0", corev1.ConditionFalse)
	w.leads("one of them answers no more", caller, web, "default/web2")
	w.deletePod("default/web0")
	w.deletePod("default/web2")
	w.leads("all are gone", caller, web)
	w.denyIngressOf("caller") // what refuses is no connection to it
	first.await("isolated pod", func() bool { return first.status().IsolatedPods == 1 })
	w.refused(caller, web)
	w.refused(caller, atPort(every, 81))
	for _, a := range []*agent{first, second} {
		if s := a.status(); len(withoutRoutes(s)) > 0 || s.Services == nil || len(s.Services.Diagnostics) > 0 {
			t.Errorf("%s: at the end the problems are %v, Services are %+v", a.name, withoutRoutes(s), s.Services)
		}
	}
}

// keepsToOne wants a client to meet one pod only by each address.
func (w *world) keepsToOne(from string, to []netip.AddrPort) {
	w.t.Helper()
	for _, at := range to {
		w.leadsSomewhere(from, at)
		if places, lost := w.met(from, at); len(places) != 1 || lost > 0 || !strings.HasPrefix(places[0], "default/web") {
			w.t.Errorf("%s calls %s and meets %v, %d calls nobody; want one pod", from, at, places, lost)
		}
	}
}

// leadsSomewhere waits until an address is served.
func (w *world) leadsSomewhere(from string, at netip.AddrPort) {
	w.t.Helper()
	for began := time.Now(); ; {
		if _, lost := w.met(from, at); lost == 0 {
			return
		}
		if time.Since(began) > patience {
			w.t.Fatalf("%s is not served", at)
		}
	}
}

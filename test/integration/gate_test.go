// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/netns"
)

// starter starts pods as a kubelet does: the API has the object, bound and
// without an address, and the runtime runs the chain of CNI plugins.
type starter struct {
	w       *world
	runtime *libcni.CNIConfig
	chain   *libcni.NetworkConfigList
}

func newStarter(w *world, socket string) *starter {
	t := w.t
	t.Helper()
	gate := program(t, "podwall-gate", "PODWALL_GATE", "make build")
	plugins := os.Getenv("PODWALL_CNI_BIN")
	if plugins == "" {
		plugins = filepath.Join(root, "bin", "cni")
	}
	if _, err := os.Stat(filepath.Join(plugins, "ptp")); err != nil {
		lacking(t, "the CNI plugins are missing: run `make cni`")
	}
	dir := t.TempDir()
	chain, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.244.1.0/24", "rangeStart": "10.244.1.100"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "podwall-gate", "socket": %q, "timeout": "10s", "onTimeout": "refuse"}]}`, filepath.Join(dir, "ipam"), socket)))
	if err != nil {
		t.Fatal(err)
	}
	return &starter{w: w, chain: chain, runtime: libcni.NewCNIConfigWithCacheDir([]string{plugins, filepath.Dir(gate)}, filepath.Join(dir, "cache"), nil)}
}

// object makes the API's object of a pod that has not started.
func (s *starter) object(name, app string) *corev1.Pod {
	w := s.w
	w.t.Helper()
	p, err := w.api.CoreV1().Pods("nsa").Create(w.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": app}},
		Spec:       corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// start runs the chain for a pod and returns when its containers could start.
func (s *starter) start(p *corev1.Pod) (*netns.NS, netip.Addr) {
	t := s.w.t
	t.Helper()
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	s.w.atEnd(ns.Close)
	conf := &libcni.RuntimeConf{ContainerID: "sandbox-" + p.Name, NetNS: ns.Path(), IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.Namespace}, {"K8S_POD_NAME", p.Name}, {"K8S_POD_INFRA_CONTAINER_ID", "sandbox-" + p.Name}, {"K8S_POD_UID", string(p.UID)}}}
	var ip netip.Addr
	node := s.w.bed.Node("node1").NS
	err = node.Do(func() error {
		result, err := s.runtime.AddNetworkList(t.Context(), s.chain, conf)
		if err != nil {
			return err
		}
		r, err := current.GetResult(result)
		if err == nil {
			ip, _ = netip.AddrFromSlice(r.IPs[0].Address.IP)
		}
		return err
	})
	if err != nil {
		t.Fatalf("starting %s: %v", p.Name, err)
	}
	t.Cleanup(func() {
		err := node.Do(func() error { return s.runtime.DelNetworkList(context.Background(), s.chain, conf) })
		if err != nil {
			t.Error(err)
		}
	})
	return ns, ip.Unmap()
}

// A pod's first connection, right after the runtime may start its containers,
// is judged by labels, though the API has not named an address of any of them.
func TestAPodThatStartsThroughTheGateIsEnforcedBeforeTheAPINamesItsAddress(t *testing.T) {
	w := newSmallWorld(t, lab.Routed)
	dir, err := os.MkdirTemp("", "podwall-gate-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	w.atEnd(func() error { return os.RemoveAll(dir) })
	socket := filepath.Join(dir, "gate.sock")
	s := newStarter(w, socket)
	w.createPolicy(w.parsePolicy([]byte(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: nsa}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]}
`)))
	w.agent("node1", "--gate-socket="+socket).ready()

	web, at := s.start(s.object("web", "web"))
	if table := w.table("node1"); !strings.Contains(table, at.String()) {
		t.Errorf("the runtime was answered, and the kernel does not know %s:\n%s", at, table)
	}
	listener, err := web.Listen(t.Context(), "tcp", netip.AddrPortFrom(at, 80).String())
	if err != nil {
		t.Fatal(err)
	}
	w.atEnd(listener.Close)
	for _, tt := range []struct {
		app  string
		open bool
	}{{"friend", true}, {"foe", false}} {
		from, own := s.start(s.object(tt.app, tt.app))
		limit := patience
		if !tt.open {
			limit = slowly(500 * time.Millisecond) // nothing tells that it is lost
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(at, 80).String())
		cancel()
		if err == nil {
			if n := retransmitted(t, conn); n > 0 {
				t.Errorf("%s to web took %d tries more, want it open at once", tt.app, n)
			}
			_ = conn.Close() // nothing was sent
		}
		if (err == nil) != tt.open {
			t.Errorf("%s (%s) to web: %v, want it open: %t", tt.app, own, err, tt.open)
		}
	}
	list, err := w.api.CoreV1().Pods("nsa").List(t.Context(), metav1.ListOptions{LabelSelector: "app in (web, friend, foe)"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if p.Status.PodIP != "" {
			t.Errorf("the API names the address %s of %s: nothing was shown", p.Status.PodIP, p.Name)
		}
	}
}

// retransmitted is how many packets of a TCP connection were sent again.
func retransmitted(t *testing.T, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if failed = err; err == nil {
			n = info.Total_retrans
		}
	})
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return n
}

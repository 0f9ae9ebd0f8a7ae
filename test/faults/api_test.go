// SPDX-License-Identifier: Apache-2.0

//go:build linux

package faults

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/netns"
)

// apiWorld is a world whose agent reads a real API server, on a host outside the nodes.
type apiWorld struct {
	*world
	host   *netns.NS
	at     netip.AddrPort
	server *kubeapi.Server
	client *kubernetes.Clientset
}

func newAPIWorld(t *testing.T) *apiWorld {
	t.Helper()
	w := &apiWorld{world: newWorld(t, lab.Routed), at: netip.MustParseAddrPort("172.30.0.1:6443")}
	e, err := w.bed.AddHost("api", []netip.Addr{w.at.Addr(), netip.MustParseAddr("fd00:172:30::1")})
	check(t, err)
	w.host = e.NS
	dir := t.TempDir()
	w.launch(dir)
	if w.server == nil {
		return nil
	}
	w.publish(usual()...) // the same text, read by the client below
	for _, text := range strings.Split(strings.Join(append([]string{w.base}, usual()...), "---\n"), "---\n") {
		if strings.TrimSpace(text) != "" {
			w.create(text)
		}
	}
	return w
}

// launch starts the server with a directory: the same directory gives the same objects.
func (w *apiWorld) launch(dir string) {
	t := w.t
	t.Helper()
	s, err := kubeapi.Launch(t.Context(), dir, kubeapi.Options{Netns: w.host, Bind: w.at.Addr(), Port: int(w.at.Port())})
	if errors.Is(err, kubeapi.ErrNotBuilt) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() { check(t, s.Stop()) })
	config, err := s.RESTConfig()
	check(t, err)
	w.server = s
	w.client, err = kubernetes.NewForConfig(config)
	check(t, err)
}

func (w *apiWorld) dir() string { return filepath.Dir(w.server.Kubeconfig) }

// stop ends the server, as a crash does if crash is true; its state is kept.
func (w *apiWorld) stop(crash bool) {
	w.t.Helper()
	if crash {
		p, err := os.FindProcess(w.server.Pid())
		check(w.t, err)
		check(w.t, p.Kill())
	}
	check(w.t, w.server.Stop())
}

// connect starts the agent; an address of the server replaces the real one.
func (w *apiWorld) connect(server string) *agent {
	w.t.Helper()
	args := []string{"--gate-socket=", "--kubeconfig=" + w.server.Kubeconfig, "--iptables-sync-period=1s"}
	if server != "" {
		args = append(args, "--master="+server)
	}
	return start(w.t, w.node(), agentProgram(), args...).ready()
}

// create makes one object, with its status.
func (w *apiWorld) create(text string) {
	t, ctx := w.t, w.t.Context()
	t.Helper()
	var kind metav1.TypeMeta
	check(t, yaml.Unmarshal([]byte(text), &kind))
	var err error
	switch kind.Kind {
	case "Node":
		var o corev1.Node
		check(t, yaml.UnmarshalStrict([]byte(text), &o))
		_, err = w.client.CoreV1().Nodes().Create(ctx, o.DeepCopy(), metav1.CreateOptions{})
		check(t, err)
		_, err = w.client.CoreV1().Nodes().UpdateStatus(ctx, &o, metav1.UpdateOptions{})
	case "Namespace":
		var o corev1.Namespace
		check(t, yaml.UnmarshalStrict([]byte(text), &o))
		_, err = w.client.CoreV1().Namespaces().Create(ctx, &o, metav1.CreateOptions{})
	case "Pod":
		var o corev1.Pod
		check(t, yaml.UnmarshalStrict([]byte(text), &o))
		made, failed := w.client.CoreV1().Pods(o.Namespace).Create(ctx, o.DeepCopy(), metav1.CreateOptions{})
		check(t, failed)
		o.UID, o.ResourceVersion = made.UID, made.ResourceVersion
		_, err = w.client.CoreV1().Pods(o.Namespace).UpdateStatus(ctx, &o, metav1.UpdateOptions{})
	case "NetworkPolicy":
		var o networkingv1.NetworkPolicy
		check(t, yaml.UnmarshalStrict([]byte(text), &o))
		_, err = w.client.NetworkingV1().NetworkPolicies(o.Namespace).Create(ctx, &o, metav1.CreateOptions{})
	default:
		t.Fatalf("no object of kind %q can be made", kind.Kind)
	}
	check(t, err)
}

// toggle creates or deletes a policy that closes the peer, which the traffic does not need open, and
// returns when the kernel shows the change.
func (w *apiWorld) toggle(on bool) {
	w.t.Helper()
	if on {
		w.create(policy("peer", "peer", `policyTypes: [Ingress], ingress: []`))
		return
	}
	check(w.t, w.client.NetworkingV1().NetworkPolicies("shop").Delete(w.t.Context(), "peer", metav1.DeleteOptions{}))
}

// closed reports whether the peer's policy is in the kernel.
func (w *apiWorld) closed() bool {
	w.t.Helper()
	table, err := w.table.Read()
	check(w.t, err)
	for _, e := range table.Set("pod-ingress4").Entries {
		if e.Key.Addr == cast()[1].addrs[0] {
			return e.Verdict.Chain != ""
		}
	}
	return false
}

// enforces waits for the peer's policy to be in the kernel, or gone from it.
func (w *apiWorld) enforces(what string, closed bool) {
	w.t.Helper()
	start := time.Now()
	await(w.t, what, func() bool { return w.closed() == closed })
	w.t.Logf("%s: enforced after %v", what, time.Since(start).Round(time.Millisecond))
}

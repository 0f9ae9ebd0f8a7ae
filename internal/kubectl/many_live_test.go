// SPDX-License-Identifier: Apache-2.0

//go:build linux

package kubectl

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/podwall/podwall/internal/lab/kubeapi"
	"github.com/podwall/podwall/internal/lab/testkit/kubeapitest"
	"github.com/podwall/podwall/internal/lab/testkit/soak"
)

// many is a real API server with so many nodes, and an agent on each.
type many struct {
	t       *testing.T
	server  *kubeapi.Server
	clients kubernetes.Interface
	kubelets
	nodes int
	last  string // what a command has printed
}

func manyNode(i int) string { return fmt.Sprintf("node-%04d", i) }
func manyPod(i int) string  { return fmt.Sprintf("podwall-%04d", i) }

// Status and wait ask many nodes by exec, all of them once, and again only those that are behind. A long run has
// 5,000 nodes, and then says what the objects would cost that ADR 0032 has decided against.
func TestManyNodesAreAskedByExec(t *testing.T) {
	m := newMany(t, soak.Times(20, 5000))
	all := fmt.Sprintf("%[1]d of %[1]d nodes enforce all policies", m.nodes)
	if out := m.ask("status", int64(m.nodes), "status"); !strings.Contains(out, all) {
		t.Errorf("the status is\n%s", out)
	}
	wait := []string{"wait", "shop/web", "--timeout", "30m"}
	enforced := fmt.Sprintf("shop/web is enforced on %[1]d of %[1]d nodes", m.nodes)
	if out := m.ask("wait", int64(m.nodes), wait...); !strings.Contains(out, enforced) {
		t.Errorf("wait says\n%s", out)
	}
	m.behind(m.nodes/10, 3)
	if out := m.ask("wait, a tenth behind three times", int64(m.nodes+m.nodes/10*3), wait...); !strings.Contains(out, enforced) {
		t.Errorf("wait says\n%s", out)
	}
	if soak.Long() {
		m.leases()
	}
}

// newMany fills an API server.
func newMany(t *testing.T, nodes int) *many {
	t.Helper()
	s := kubeapitest.StartWith(t, kubeapi.Options{Profile: kubeapi.Full})
	m := &many{t: t, server: s, clients: adminOf(t, s), nodes: nodes}
	m.kubelets.serve(t)
	ctx := t.Context()
	for _, name := range []string{agentsNamespace, "shop"} {
		_, err := m.clients.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{})
		m.check(err)
	}
	began := time.Now()
	m.check(each(ctx, nodes, 8, m.addNode))
	p, err := m.clients.NetworkingV1().NetworkPolicies("shop").Create(ctx, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"}}, metav1.CreateOptions{})
	m.check(err)
	version, err := strconv.ParseUint(p.ResourceVersion, 10, 64)
	m.check(err)
	m.newest.Store(version)
	t.Logf("%d nodes with an agent each, made in %.0f s: %d MiB in the API server with etcd", nodes, time.Since(began).Seconds(),
		m.memory())
	return m
}

func (m *many) check(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// addNode makes a node whose kubelet is the one of the test, and its agent's pod.
func (m *many) addNode(ctx context.Context, i int) error {
	node, err := m.clients.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: manyNode(i)}},
		metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = m.port
	if _, err := m.clients.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return err
	}
	yes := true
	pod, err := m.clients.CoreV1().Pods(agentsNamespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: manyPod(i), Labels: map[string]string{agentLabel: agentName},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "podwall", UID: "1",
				Controller: &yes}}},
		Spec: corev1.PodSpec{NodeName: manyNode(i), HostNetwork: true,
			Containers: []corev1.Container{{Name: agentContainer, Image: "podwall"}}}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: agentContainer, Ready: true,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	_, err = m.clients.CoreV1().Pods(agentsNamespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// ask runs a command that must say yes, and says what it cost. It must open so many sessions.
func (m *many) ask(what string, sessions int64, args ...string) string {
	m.t.Helper()
	m.asked.Store(0)
	m.measured(what, func() string {
		status, out, said := commandLine(m.t, append(args, "--kubeconfig", m.server.Kubeconfig)...)
		if status != 0 || m.asked.Load() != sessions || m.fails.Load() > 0 {
			m.t.Errorf("%s: exit status %d, %d sessions, want %d, %d failed\n%s%s", what, status, m.asked.Load(), sessions,
				m.fails.Load(), out, said)
		}
		m.last = out
		return fmt.Sprintf("%d sessions", m.asked.Load())
	})
	return m.last
}

// measured says how long something takes, and what the API server with its etcd needs meanwhile.
func (m *many) measured(what string, f func() string) {
	m.t.Helper()
	cpu, began := m.cpu(), time.Now()
	said := f()
	took := time.Since(began)
	used := m.cpu() - cpu
	m.t.Logf("%s: %s in %.1f s; API server and etcd %.1f s of CPU time (%.2f cores), %d MiB", what, said, took.Seconds(),
		used.Seconds(), used.Seconds()/took.Seconds(), m.memory())
}

// leases writes the objects that there are not: a Lease for each node, at the usual rate and at the worst.
func (m *many) leases() {
	ctx := m.t.Context()
	at := m.clients.CoordinationV1().Leases(agentsNamespace)
	m.measured("a Lease for each node", func() string {
		m.check(each(ctx, m.nodes, 32, func(ctx context.Context, i int) error {
			_, err := at.Create(ctx, m.lease(i), metav1.CreateOptions{})
			return err
		}))
		return fmt.Sprint(m.nodes, " objects")
	})
	one, err := at.Get(ctx, manyNode(0), metav1.GetOptions{})
	m.check(err)
	stored, err := one.Marshal()
	m.check(err)
	m.t.Logf("a Lease is %d bytes in etcd", len(stored))
	m.writes(m.nodes/60, time.Minute)
	m.writes(m.nodes/10, time.Minute)
	m.measured("one list of the Leases", func() string {
		text, err := m.clients.CoordinationV1().RESTClient().Get().Namespace(agentsNamespace).Resource("leases").DoRaw(ctx)
		m.check(err)
		return fmt.Sprintf("%.1f MB", float64(len(text))/1e6)
	})
}

func (m *many) lease(i int) *coordinationv1.Lease {
	name, now := manyNode(i), metav1.NewMicroTime(time.Now())
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: leaseNotes(0)},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, RenewTime: &now}}
}

// leaseNotes are what an agent answers today, as annotations.
func leaseNotes(version int64) map[string]string {
	return map[string]string{"podwall.io/policy-version": fmt.Sprint(version), "podwall.io/version": "0.1.0",
		"podwall.io/ready": "true", "podwall.io/pods": "30", "podwall.io/isolated-pods": "12", "podwall.io/held-pods": "0",
		"podwall.io/problems": "", "podwall.io/not-ready": ""}
}

// writes patches Leases at a rate, for a time, each at its moment unless the server is behind.
func (m *many) writes(rate int, lasts time.Duration) {
	m.t.Helper()
	n := rate * int(lasts.Seconds())
	took := make([]time.Duration, n)
	stored := m.stored()
	var patch atomic.Int64
	m.measured(fmt.Sprintf("%d writes a second", rate), func() string {
		began := time.Now()
		m.check(each(m.t.Context(), n, 64, func(ctx context.Context, i int) error {
			due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
			sleep(ctx, time.Until(due))
			text, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": leaseNotes(1000 + int64(i))},
				"spec": map[string]any{"renewTime": metav1.NewMicroTime(time.Now())}})
			if err != nil {
				return err
			}
			patch.Store(int64(len(text)))
			_, err = m.clients.CoordinationV1().Leases(agentsNamespace).Patch(ctx, manyNode(i%m.nodes), types.MergePatchType, text,
				metav1.PatchOptions{})
			took[i] = time.Since(due)
			return err
		}))
		slices.Sort(took)
		return fmt.Sprintf("%d writes of %d bytes, %.0f a second, late and answered after %.0f ms (median), %.0f ms (99 %%), "+
			"%.1f MB more on etcd's disk", n, patch.Load(), float64(n)/time.Since(began).Seconds(),
			took[n/2].Seconds()*1e3, took[n*99/100].Seconds()*1e3, float64(m.stored()-stored)/1e6)
	})
}

// cpu is what the API server's process, in which etcd is, has used.
func (m *many) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.server.Pid()))
	m.check(err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:13] { // in user mode and in the kernel, in hundredths of a second
		n, err := strconv.ParseInt(f, 10, 64)
		m.check(err)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory is that of the process, in MiB.
func (m *many) memory() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.server.Pid()))
	m.check(err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	m.check(err)
	return kib >> 10
}

// stored is the size of etcd's files.
func (m *many) stored() (bytes int64) {
	m.check(filepath.WalkDir(filepath.Join(filepath.Dir(m.server.Kubeconfig), "etcd"),
		func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Base(name) != "db" {
				return nil // files come and go
			}
			info, err := d.Info()
			if err == nil {
				bytes += info.Size()
			}
			return nil
		}))
	return bytes
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
)

// itself makes the test program the stand-in.
const itself = "PODWALL_TEST_STANDIN"

func TestMain(m *testing.M) {
	if os.Getenv(itself) != "" {
		main()
		return
	}
	entry.Main(m)
}

// question is a connection that somebody wants, and whether the policies of
// the world allow it.
type question struct {
	from, to string
	port     int
	allowed  bool
}

func (q question) String() string { return fmt.Sprintf("%s to %s, port %d", q.from, q.to, q.port) }

func questions() []question {
	return []question{
		{"client", "near", 80, true},
		{"client", "near", 81, false},
		{"client", "closed", 80, false},
		{"client", "free", 80, false}, // not a peer of the egress rule
		{"client", "far", 80, true},
		{"client", "inside", 80, false},
		{"far", "near", 80, true},
		{"far", "near", 81, false},
		{"far", "closed", 80, false},
		{"free", "near", 80, false}, // not a peer of the ingress rule
		{"free", "client", 81, true},
		{"near", "free", 81, true},
		{"inside", "near", 80, true},
		{"inside", "near", 81, false},
		{"outside", "near", 80, false},
		{"outside", "free", 80, true},
		{"node1", "closed", 80, true}, // the pod's own node
		{"node2", "closed", 80, false},
	}
}

// policies are of the kinds that the benchmarks have.
func policies(t *testing.T) []networkingv1.NetworkPolicy {
	return []networkingv1.NetworkPolicy{
		newPolicy(t, "client", `{policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {tier: peer}}}], ports: [{port: 8080}]},
			{to: [{podSelector: {matchLabels: {tier: peer}}}], ports: [{port: 80}, {port: 80, protocol: UDP}]}]}`),
		newPolicy(t, "near", `{policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {tier: peer}}}], ports: [{port: 80}]},
			{from: [{ipBlock: {cidr: 14.215.0.0/16}}], ports: [{port: 80, protocol: TCP}]}]}`),
		newPolicy(t, "closed", `{policyTypes: [Ingress]}`),
	}
}

// world is a lab with the pods of the questions.
type world struct {
	*testing.T
	bed  *lab.Bed
	pods []corev1.Pod
	ends map[string]*lab.Endpoint
}

func newWorld(t *testing.T) *world {
	t.Helper()
	for _, program := range []string{"iptables-restore", "ipset", "nft"} {
		if _, err := exec.LookPath(program); err != nil && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
	}
	bed, err := lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: []string{"node1", "node2"}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, bed: bed, ends: map[string]*lab.Endpoint{"node1": bed.Node("node1"), "node2": bed.Node("node2")}}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Error(err)
		}
	})
	w.pods = []corev1.Pod{newPod("client", "node1", "10.244.1.5", true), newPod("near", "node1", "10.244.1.6", true),
		newPod("closed", "node1", "10.244.1.7", true), newPod("free", "node1", "10.244.1.8", false), newPod("far", "node2", "10.244.2.5", true)}
	for _, p := range w.pods {
		key := cluster.Key{Namespace: p.Namespace, Name: p.Name}
		w.add(p.Name)(bed.AddPod(lab.PodSpec{Key: key, Node: p.Spec.NodeName, IPs: []netip.Addr{netip.MustParseAddr(p.Status.PodIPs[0].IP)}}))
	}
	w.add("inside")(bed.AddHost("inside", []netip.Addr{netip.MustParseAddr("14.215.0.5")}))
	w.add("outside")(bed.AddHost("outside", []netip.Addr{netip.MustParseAddr("14.216.0.5")}))
	return w
}

// add takes what the bed made and lets it listen. Nobody accepts: a connection
// that is open is enough.
func (w *world) add(name string) func(*lab.Endpoint, error) {
	return func(e *lab.Endpoint, err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
		w.ends[name] = e
		for _, port := range []string{"80", "81"} {
			l, err := e.NS.Listen(w.Context(), "tcp4", "0.0.0.0:"+port)
			if err != nil {
				w.Fatal(err)
			}
			w.Cleanup(func() { _ = l.Close() }) // the test is over
		}
	}
}

// expect asks every question; open is for when no rules are there.
func (w *world) expect(when string, open bool) {
	w.Helper()
	got, want := map[string]bool{}, map[string]bool{}
	for _, q := range questions() {
		want[q.String()], got[q.String()] = open || q.allowed, w.passes(q)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.Fatalf("%s, who passes (-want +got):\n%s", when, diff)
	}
}

// passes reports whether a connection opens. One that is denied is refused at
// once, so a slow machine does not make a denial.
func (w *world) passes(q question) bool {
	w.Helper()
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	conn, err := w.ends[q.from].NS.Dial(ctx, "tcp4", fmt.Sprintf("%s:%d", w.ends[q.to].Addrs[0], q.port))
	if err == nil {
		_ = conn.Close() // it was open, that is all
		return true
	}
	if !strings.Contains(err.Error(), "refused") {
		w.Fatalf("%s: %v, want an answer", q, err)
	}
	return false
}

// leftovers are all tables of a node that hold something, and its ipsets.
func (w *world) leftovers(node string) string {
	w.Helper()
	var all string
	err := w.ends[node].NS.Do(func() error {
		ruleset, err := tool("", "nft", "-s", "list", "ruleset")
		if err != nil {
			return err
		}
		sets, err := tool("", "ipset", "list", "-name")
		all = strings.ReplaceAll(ruleset, "table ip filter {\n}\n", "") + sets
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return all
}

func TestItEnforcesUntilItIsStoppedAndLeavesNothing(t *testing.T) {
	w := newWorld(t)
	before := map[string]string{"node1": w.leftovers("node1"), "node2": w.leftovers("node2")}
	w.expect("before", true)
	var all []*standin
	for _, node := range []string{"node1", "node2"} {
		kubeconfig := serve(t, w.ends[node], w.pods, policies(t))
		all = append(all, start(t, w.ends[node], "NODE_NAME="+node, "KUBECONFIG="+kubeconfig).awaitRules())
	}
	w.expect("with its rules", false)
	for _, p := range all {
		p.stop()
	}
	w.expect("after it", true)
	for node, text := range before {
		if diff := cmp.Diff(text, w.leftovers(node)); diff != "" {
			t.Errorf("what it left in %s (-want +got):\n%s", node, diff)
		}
	}
}

func TestItRefusesTheNamespaceOfItsParents(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), itself+"=1", "NODE_NAME=node1", "KUBECONFIG=/nonexistent")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "want that of a lab node") {
		t.Errorf("beside its parent it says %q (%v), want a refusal", out, err)
	}
}

func TestItRefusesANamespaceThatLeadsOut(t *testing.T) {
	w := newWorld(t)
	p := start(t, w.ends["near"], "NODE_NAME=node1", "KUBECONFIG=/nonexistent") // a pod's default route leads to its node
	if err := p.Err(); err == nil || !strings.Contains(p.Tail(), "has a default route") {
		t.Errorf("where a default route is it says %q (%v), want a refusal", p.Tail(), err)
	}
}

// SPDX-License-Identifier: Apache-2.0

package matrix_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/explain/matrix"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/testkit/gen"
	"github.com/podwall/podwall/internal/netpol/oracle"
)

func hosts() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7")}
}

func ports(t *rapid.T) []matrix.Port {
	return []matrix.Port{{Protocol: inet.TCP, Number: rapid.SampledFrom([]uint16{53, 80, 443}).Draw(t, "tcp")},
		{Protocol: inet.UDP, Number: rapid.SampledFrom([]uint16{53, 81}).Draw(t, "udp")}, {Protocol: 1}}
}

// sole leaves out pods with an address that another pod has too: the programs close such
// an address, and the oracle gives it to one of them.
func sole(snap *cluster.Snapshot) *cluster.Snapshot {
	claims := map[netip.Addr]int{}
	s := *snap
	s.Pods = nil
	for _, p := range snap.Pods {
		claimed := false
		for _, a := range p.IPs {
			claims[a]++
			claimed = claimed || claims[a] > 1
		}
		if !claimed {
			s.Pods = append(s.Pods, p)
		}
	}
	return &s
}

func build(t interface{ Fatal(...any) }, snap *cluster.Snapshot, o matrix.Options) *matrix.Matrix {
	m, err := matrix.Build(snap, explain.New(snap), o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wanted asks the oracle about every pair of addresses of two ends.
func wanted(snap *cluster.Snapshot, p matrix.Port, src, dst matrix.End) (c matrix.Cell) {
	for _, s := range endpoints(snap, src) {
		for _, d := range endpoints(snap, dst) {
			if s.Addr.Is4() != d.Addr.Is4() || s.Pod == d.Pod {
				continue
			}
			count := &c.IPv4
			if s.Addr.Is6() {
				count = &c.IPv6
			}
			count.Flows++
			f := oracle.Flow{Protocol: cluster.Protocol(p.Protocol), Src: s, Dst: d, Port: p.Number}
			if oracle.Judge(snap, f).Allowed {
				count.Allowed++
				if !oracle.Audit(snap, f).Allowed {
					count.Audited++
				}
			}
		}
	}
	return c
}

func endpoints(snap *cluster.Snapshot, e matrix.End) (list []oracle.Endpoint) {
	if len(e.Pods) == 0 {
		return []oracle.Endpoint{oracle.Addr(netip.MustParseAddr(e.Name))}
	}
	for _, k := range e.Pods {
		for _, p := range snap.Pods {
			if p.Key == k {
				for _, a := range p.IPs {
					list = append(list, oracle.Endpoint{Pod: k, Addr: a})
				}
			}
		}
	}
	return list
}

// Every cell counts what the oracle allows, for pods, workloads and namespaces.
func TestEveryCellIsWhatTheOracleSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := sole(gen.Snapshot(t))
		by := []matrix.By{matrix.ByPod, matrix.ByWorkload, matrix.ByNamespace}
		o := matrix.Options{By: rapid.SampledFrom(by).Draw(t, "by"),
			Workload: map[cluster.Key]string{}, Hosts: hosts(), Ports: ports(t)}
		for _, p := range snap.Pods {
			if name := rapid.SampledFrom([]string{"", "one", "two"}).Draw(t, "workload"); name != "" {
				o.Workload[p.Key] = name
			}
		}
		m := build(t, snap, o)
		shown := len(m.LeftOut)
		for s, src := range m.Ends {
			shown += len(src.Pods)
			for d, dst := range m.Ends {
				for p, port := range m.Ports {
					if got, want := m.Cell(p, s, d), wanted(snap, port, src, dst); got != want {
						t.Fatalf("%s to %s %s: %+v, the oracle says %+v\n%s", src.Name, dst.Name, port, got, want,
							gen.Describe(snap))
					}
				}
			}
		}
		if shown != len(snap.Pods) {
			t.Fatalf("%d pods are shown or left out, of %d", shown, len(snap.Pods))
		}
	})
}

// A pod with the address of another one is shown as the nodes judge it.
func TestAnAddressOfTwoPodsIsJudgedByTheNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap := gen.Snapshot(t)
		m := build(t, snap, matrix.Options{By: matrix.ByPod, Ports: ports(t)})
		answers := explain.New(snap)
		for s, src := range m.Ends {
			for d, dst := range m.Ends {
				c, f := m.Cell(0, s, d), explain.Flow{Src: explain.End{Pod: src.Pods[0]},
					Dst: explain.End{Pod: dst.Pods[0]}, Protocol: m.Ports[0].Protocol, Port: m.Ports[0].Number}
				if e, err := answers.Explain(f); err == nil && s != d && c.IPv4.Flows+c.IPv6.Flows == 1 &&
					(c.Verdict() == matrix.Allowed) != e.Allowed {
					t.Fatalf("%s to %s: %s\n%s", src.Name, dst.Name, c.Verdict(), e)
				}
			}
		}
	})
}

func TestVerdicts(t *testing.T) {
	all, none := matrix.Count{Allowed: 2, Flows: 2}, matrix.Count{Flows: 2}
	some, no := matrix.Count{Allowed: 1, Flows: 2}, matrix.Count{}
	for _, tt := range []struct {
		four, six matrix.Count
		want      matrix.Verdict
	}{{all, all, matrix.Allowed}, {none, none, matrix.Denied}, {all, no, matrix.Allowed}, {no, none, matrix.Denied},
		{all, none, matrix.IPv4Only}, {none, all, matrix.IPv6Only}, {some, none, matrix.Some}, {all, some, matrix.Some},
		{some, no, matrix.Some}, {no, no, matrix.NoFlow}} {
		if got := (matrix.Cell{IPv4: tt.four, IPv6: tt.six}).Verdict(); got != tt.want {
			t.Errorf("%v, %v: %q, want %q", tt.four, tt.six, got, tt.want)
		}
	}
}

// Flows that only audit mode allows are marked, in every form.
func TestWhatAuditModeAllowsIsMarked(t *testing.T) {
	pod := func(name string, last byte) *cluster.Pod {
		return &cluster.Pod{Key: cluster.Key{Namespace: "a", Name: name}, Node: "n",
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, last})}, Labels: cluster.NewLabels(map[string]string{"n": name})}
	}
	snap := &cluster.Snapshot{Namespaces: []*cluster.Namespace{{Name: "a"}}, Pods: []*cluster.Pod{pod("x", 1), pod("y", 2)},
		Policies: []*cluster.Policy{{Key: cluster.Key{Namespace: "a", Name: "p"}, Audit: true, Subject: cluster.Everything(),
			IsolatesIngress: true}}}
	m := build(t, snap, matrix.Options{By: matrix.ByPod, Ports: []matrix.Port{{Protocol: inet.TCP, Number: 80}}})
	var page bytes.Buffer
	if err := m.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	value, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{
		m.String():    {"2 of 2 flows are allowed, 2 only because of audit mode", "a: all are allowed, some of them only"},
		page.String(): {">a", "1 of 1, 1 only because of audit mode"}, string(value): {`"audited":1`}} {
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("no %q in\n%s", w, text)
			}
		}
	}
}

// large is a cluster of n pods in ten namespaces, with fifty applications of which each
// may be reached by the next one only, on two nodes.
func large(n int) *cluster.Snapshot {
	snap := &cluster.Snapshot{}
	for i := range 10 {
		name := fmt.Sprintf("team-%d", i)
		snap.Namespaces = append(snap.Namespaces, &cluster.Namespace{Name: name,
			Labels: cluster.NewLabels(map[string]string{"kubernetes.io/metadata.name": name})})
	}
	for i := range n {
		b := [4]byte{10, 0, byte(i / 250), byte(1 + i%250)}
		snap.Pods = append(snap.Pods, &cluster.Pod{
			Key:  cluster.Key{Namespace: fmt.Sprintf("team-%d", i%10), Name: fmt.Sprintf("pod-%d", i)},
			Node: fmt.Sprintf("node-%d", i%2), Labels: cluster.NewLabels(map[string]string{"app": fmt.Sprint(i % 50)}),
			IPs: []netip.Addr{netip.AddrFrom4(b), netip.AddrFrom16([16]byte{0: 0xfd, 13: b[1], 14: b[2], 15: b[3]})}})
	}
	for i := range 50 {
		snap.Policies = append(snap.Policies, policyFor(i))
	}
	return snap
}

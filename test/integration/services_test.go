// SPDX-License-Identifier: Apache-2.0

//go:build linux

package integration

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/packet"
	"github.com/podwall/podwall/internal/lab/probe"
	"github.com/podwall/podwall/internal/observe"
)

// serving are the arguments with which an agent serves Services, too.
func serving(more ...string) []string {
	return append([]string{"--run-service-proxy=true", "--service-cluster-ip-range=10.96.0.0/12,fd96::/112",
		"--cluster-cidr=10.244.0.0/16,fd00:244::/32"}, more...)
}

// rangesOfPods gives the Nodes the ranges of their pods, as a controller does.
func (w *world) rangesOfPods() {
	w.t.Helper()
	for name, ranges := range map[string][]string{"node1": {"10.244.1.0/24", "fd00:244:1::/64"},
		"node2": {"10.244.2.0/24", "fd00:244:2::/64"}} {
		nodes := w.api.CoreV1().Nodes()
		n, err := nodes.Get(w.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			w.t.Fatal(err)
		}
		n.Spec.PodCIDR, n.Spec.PodCIDRs = ranges[0], ranges
		if _, err := nodes.Update(w.t.Context(), n, metav1.UpdateOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// The calls are those that are tried beside the real kube-proxy, with the same policies and the same answers.
func TestPoliciesHoldWithServicesOfTheAgents(t *testing.T) {
	for _, wiring := range []lab.Wiring{lab.Routed, lab.Bridge} {
		t.Run(string(wiring), func(t *testing.T) {
			w := newWorld(t, wiring, "node1", "node2")
			asked := w.populateForServices(wiring)
			w.rangesOfPods()
			first, second := w.agent("node1", serving()...).ready(), w.agent("node2", serving()...).ready()
			w.judgeServices("own", first, asked)
			for _, a := range []*agent{first, second} {
				s := a.status()
				if !s.Ready || s.DriftRepairs != 0 || len(withoutRoutes(s)) > 0 || len(s.Diagnostics) > 0 {
					t.Errorf("%s: status at the end is %+v, want ready and nothing else to say", a.name, s)
				}
				if x := s.Services; x == nil || x.Services < 2 || x.DriftRepairs != 0 || len(x.Diagnostics) > 0 {
					t.Errorf("%s: Services at the end are %+v", a.name, x)
				}
			}
			w.createNamespace("liars")
			w.createPod("liars/service", "node1", anywhere().addrs)
			first.await("the name of a pod that claims a Service's address", func() bool {
				return slices.Equal(namedLiars(first), []string{"service"})
			})
		})
	}
}

// withoutRoutes returns the problems but one that is true here: nodes of the lab have no default route.
func withoutRoutes(s observe.Status) []observe.Problem {
	return slices.DeleteFunc(s.Problems, func(p observe.Problem) bool { return p.Subject == "routes to Services" })
}

// foreignTables lists the tables of a node that are not podwall's.
func (w *world) foreignTables(node string) (list []string) {
	w.t.Helper()
	err := w.bed.Node(node).NS.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		for _, t := range tables {
			if !strings.HasPrefix(t.Name, "podwall") {
				list = append(list, t.Name)
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// A running kube-proxy keeps the agent's proxy from starting, and so do its rules when it has stopped; policies
// hold meanwhile. With --takeover the rules go once Services are served, and no call fails on the way there and
// back.
func TestTakingOverFromKubeProxy(t *testing.T) {
	kubeProxyProgram(t)
	w := newWorld(t, lab.Routed, "node1", "node2")
	w.populateForServices(lab.Routed)
	w.rangesOfPods()
	proxy := w.kubeProxy("node1", "nftables")
	calls := w.serviceStream("default/near", anywhere().addrs)

	a := w.agent("node1", serving("--takeover")...)
	text := a.answers("/readyz", http.StatusServiceUnavailable)
	a.await("a refusal", func() bool {
		_, text = a.Get("/readyz")
		return strings.Contains(text, "other service proxy: kube-proxy runs")
	})
	a.await("policies", func() bool { return a.status().Revision > 0 })
	if s := a.status().Services; s.LastApply != nil {
		t.Errorf("beside kube-proxy the agent has served Services: %+v", s)
	}
	proxy.Kill()
	a.ready()
	a.await("no rules of kube-proxy", func() bool { return !slices.Contains(w.foreignTables("node1"), "kube-proxy") })
	calls.goOn(100)
	if list := withoutRoutes(a.status()); len(list) > 0 {
		t.Errorf("after the take-over the problems are %v", list)
	}

	// The way back: kube-proxy first, then the agent without Services.
	proxy = w.kubeProxy("node1", "nftables")
	a.Stop()
	a = w.agent("node1").ready()
	a.await("no tables of Services", func() bool { return a.status().Services == nil && !w.ourServices("node1") })
	calls.goOn(100)
	calls.stop()
	proxy.Kill()
}

// ourServices reports whether a node has our tables of Services.
func (w *world) ourServices(node string) (found bool) {
	w.t.Helper()
	err := w.bed.Node(node).NS.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := c.ListTables()
		found = slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == "podwall-services" })
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// serviceStream calls a Service without a pause, from one pod: all first packets of connections must arrive.
func (w *world) serviceStream(from string, to []netip.Addr) *stream {
	w.t.Helper()
	s := newStream(w)
	s.start(func() error {
		port := w.nextPort()
		for _, dst := range to {
			p := probe.Probe{ID: w.prober.NextID(), From: from, Proto: packet.TCP, Dst: dst, SrcPort: port, DstPort: 80}
			s.permit = append(s.permit, p.ID)
			if err := w.prober.Send([]probe.Probe{p}); err != nil {
				return err
			}
		}
		return nil
	})
	return s
}

// A client that connects all the time meets the Service through a restart, a kill, and a flush of all rules.
func TestServicesGoOnThroughRestarts(t *testing.T) {
	w := newWorld(t, lab.Routed, "node1", "node2")
	w.populateForServices(lab.Routed)
	w.rangesOfPods()
	a := w.agent("node1", serving()...).ready()
	calls := w.serviceStream("default/near", anywhere().addrs)
	calls.goOn(50)
	a.Stop()
	calls.goOn(50)
	a = w.agent("node1", serving()...).ready()
	calls.goOn(50)
	a.Kill()
	a = w.agent("node1", serving()...).ready()
	calls.goOn(50)
	calls.stop()
	if s := a.status().Services; s.DriftRepairs != 0 {
		t.Errorf("the last agent made %d repairs", s.DriftRepairs)
	}
	err := w.bed.Node("node1").NS.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	a.await("repairs after a flush", func() bool { return a.status().Services.DriftRepairs > 0 })
	calls = w.serviceStream("default/near", anywhere().addrs)
	calls.goOn(50)
	calls.stop()
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/meter"
	"github.com/podwall/podwall/internal/lab/testkit/entry"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/source/manifest"
)

// TestMain plays the meter's process when it is asked to.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "meter" {
		if err := meter.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	entry.Main(m, entry.FreshAgent("../../../../cmd/podwall-agent"))
}

func small() shape { return shape{pods: 200, policies: 1, onPod: 1} }

func config(t *testing.T) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{Rounds: 2, Quick: true, Agent: os.Getenv(entry.AgentVariable), Meter: []string{self, "meter"}}
}

func build(t *testing.T, p plan) (*stage, *meter.Process) {
	t.Helper()
	cfg := config(t)
	s, err := newStage(t.Context(), cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	m, err := meter.Start(cfg.Meter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, m
}

// A forwarded packet meets the hooks prerouting (0), forward (2) and
// postrouting (4). A nat chain is entered with a connection's first packet only.
func perPacket(hooks []lab.Hook) (list []string) {
	for _, h := range hooks {
		if h.Type != "nat" && h.Number != 1 && h.Number != 3 {
			list = append(list, h.Family+" "+h.Chain)
		}
	}
	return list
}

func TestEstablishedPacketsMeetNoHookOfOurs(t *testing.T) {
	for guard, want := range map[string][]string{"off": nil, "on": {"inet guard"}} {
		t.Run("guard "+guard, func(t *testing.T) {
			s, _ := build(t, setting("", small()).with("nat", guard).plan)
			for _, n := range s.nodes {
				awake, err := n.tables.Hooks(tableName)
				if err != nil {
					t.Fatal(err)
				}
				if len(awake) == 0 {
					t.Fatalf("%s: there is no hook at all", n.Name)
				}
				if got := perPacket(awake); !slices.Equal(got, want) {
					t.Errorf("%s: every packet meets %v, want %v", n.Name, got, want)
				}
			}
		})
	}
}

func counters(t *testing.T, s *stage) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for _, n := range s.nodes {
		conn, err := ruleset.Open(n.NS.FD())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		got, err := ruleset.Counters(conn)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range got {
			all[n.Name+" "+name] = v
		}
	}
	return all
}

func TestEstablishedPacketsMoveNoCounterAndDeniedOnesDo(t *testing.T) {
	s, m := build(t, setting("", small()).plan)
	awake := mode{name: "on", awake: true}
	before := counters(t, s)
	if len(before) == 0 {
		t.Fatal("there is no counter")
	}
	for _, one := range everything() {
		one.n /= 20
		if _, err := s.observe(m, awake, []measurement{one}); err != nil {
			t.Fatal(err)
		}
		if after := counters(t, s); !maps.Equal(before, after) {
			t.Errorf("%s: counters are %v, were %v", one.what, after, before)
		}
	}
	denied := measurement{meter.Unanswered, "denied", "ns", "closed", 500, 1}
	if _, err := s.observe(m, awake, []measurement{denied}); err != nil {
		t.Fatal(err)
	}
	moved := uint64(0)
	for name, v := range counters(t, s) {
		moved += v - before[name]
	}
	if moved < 500 {
		t.Errorf("500 packets were denied, counters moved by %d", moved)
	}
}

// Established packets are of one connection, first packets of as many as they
// are; both are new to the nodes at the beginning of a turn.
func TestTheNodesSeeTheConnectionsThatAreMeant(t *testing.T) {
	s, m := build(t, setting("", small()).plan)
	for what, want := range map[*measurement]int{{kind: meter.Established, to: "near", n: 500, times: 2}: 1,
		{kind: meter.First, to: "near", n: 500, times: 2}: 1000, {kind: meter.Keepalive, to: "far", n: 50, times: 2}: 1,
		{kind: meter.Connection, to: "far", n: 50, times: 2}: 100} {
		what.unit = "ns"
		for _, mode := range []mode{{name: "off"}, {name: "on", awake: true}} {
			if _, err := s.observe(m, mode, []measurement{*what}); err != nil {
				t.Fatal(err)
			}
			flows, err := s.nodes[0].flows.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(unix.AF_INET))
			if err != nil {
				t.Fatal(err)
			}
			if got := len(flows); got < want || got > want+100 {
				t.Errorf("%s, %s: %d connections, want %d and those that warm up", what.kind, mode.name, got, want)
			}
		}
	}
}

func TestDormantRulesDenyNothingAndComeBack(t *testing.T) {
	s, m := build(t, setting("", small()).plan)
	closed := measurement{meter.Established, "to a pod that is closed", "ns", "closed", 100, 1}
	for range 2 {
		if _, err := s.observe(m, mode{name: "off"}, []measurement{closed}); err != nil {
			t.Errorf("with dormant rules: %v", err)
		}
		if _, err := s.observe(m, mode{name: "on", awake: true}, []measurement{closed}); err == nil {
			t.Error("with the rules awake a pod that is closed can be called")
		}
	}
}

// The figures are about sets of that size only if the kernel has them.
func TestThePodsAreInTheKernel(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*shape)
		want   int
	}{
		"pods":     {func(*shape) {}, 200},
		"CIDRs":    {func(s *shape) { s.cidrs = 300 }, 300},
		"families": {func(s *shape) { s.v6 = true }, 400},
	} {
		t.Run(name, func(t *testing.T) {
			p := small()
			tt.change(&p)
			s, _ := build(t, setting("", p).plan)
			for _, n := range s.nodes {
				conn, err := ruleset.Open(n.NS.FD())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				table, err := conn.Read()
				if err != nil {
					t.Fatal(err)
				}
				elements := 0
				for _, set := range table.Sets {
					elements += set.Len()
				}
				if elements < tt.want && !(name == "CIDRs" && n.Name == "node1") {
					t.Errorf("%s: sets have %d elements, want %d and more", n.Name, elements, tt.want)
				}
			}
		})
	}
}

// kube-router, to name one, takes the pods of a node by status.hostIP.
func TestPodsHaveTheStatusThatTheirKubeletWrites(t *testing.T) {
	bed, err := lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: nodeNames()})
	if err != nil {
		t.Fatal(err)
	}
	defer bed.Close()
	for _, p := range small().list() {
		node, s := bed.Node(p.Spec.NodeName), p.Status
		if node != nil && s.HostIP != node.Addrs[0].String() || s.HostIP == "" ||
			len(s.Conditions) == 0 || len(s.ContainerStatuses) != 1 {
			t.Errorf("%s on %s: %+v", p.Name, p.Spec.NodeName, s)
		}
	}
}

func TestTheManifestsHaveWhatTheShapeSays(t *testing.T) {
	bed, err := lab.NewBed(lab.Config{Wiring: lab.Routed, Nodes: nodeNames()})
	if err != nil {
		t.Fatal(err)
	}
	defer bed.Close()
	s := shape{pods: 300, policies: 50, onPod: 10, cidrs: 20, v6: true}
	text, err := s.manifests(bed)
	if err != nil {
		t.Fatal(err)
	}
	r, err := manifest.Parse("bench.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	addrs := map[string]bool{}
	for _, p := range r.Pods {
		for _, a := range p.IPs {
			if addrs[a.String()] {
				t.Errorf("two pods have %s", a)
			}
			addrs[a.String()] = true
		}
	}
	if pods, policies := len(r.Pods), len(r.Policies); pods != 300+4+2*localOthers || policies != 3+49+9 || len(addrs) != 2*pods {
		t.Errorf("%d pods with %d addresses, %d policies", pods, len(addrs), policies)
	}
	if len(r.Diagnostics) > 0 {
		t.Errorf("diagnostics: %v", r.Diagnostics)
	}
}

func TestAGroupRunsAndFillsItsRows(t *testing.T) {
	for _, name := range []string{"pods", "found"} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			cfg.Groups = []string{name}
			var r bench.Report
			if err := Run(t.Context(), cfg, &r); err != nil {
				t.Fatal(err)
			}
			for _, row := range r.Rows {
				if row.Value.N != 2 || row.Value.Median <= 0 || (row.Base != "") != (row.Ratio != nil) || row.Base == row.Name {
					t.Errorf("row %+v", row)
				}
			}
			if len(r.Rows) < 3 || len(r.Notes) == 0 {
				t.Errorf("%d rows and %d notes", len(r.Rows), len(r.Notes))
			}
			if name == "pods" && (len(r.Plots) != 1 || len(r.Plots[0].Lines) != 5 || len(r.Plots[0].Lines[0].Points) != 3) {
				t.Errorf("plots %+v", r.Plots)
			}
		})
	}
}

func TestNothingIsLeftBehindWhenAnAgentEndsAtOnce(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	cfg := config(t)
	p := setting("", small()).plan
	p.agent = []string{"--no-such-flag"}
	if _, err := newStage(t.Context(), cfg, p); err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("error %v, want what the agent said", err)
	}
	left, err := filepath.Glob(os.TempDir() + "/podwall-bench-*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

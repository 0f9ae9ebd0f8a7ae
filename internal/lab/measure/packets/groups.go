// SPDX-License-Identifier: Apache-2.0

//go:build linux

package packets

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/bench"
	"github.com/podwall/podwall/internal/lab/measure/meter"
)

// Groups are the names of what can be measured, in this order.
var Groups = [...]string{"pods", "datapath", "policies", "cidrs", "family", "wiring", "found", peersGroup}

// peersGroup is measured whenever there are peers.
const peersGroup = "peers"

// group is a number of settings that are measured together.
type group struct {
	name, title  string
	subjects     []subject
	measurements []measurement
	plot         *bench.Plot
	// proxied groups stand beside the real kube-proxy, if there is one.
	proxied bool
}

// subject is one stage and the modes in which it is measured. The first mode of
// a stage is its base.
type subject struct {
	name  string
	plan  plan
	modes []mode
	// x is the place in the plot, 0 for none.
	x float64
	// guarded stages have the guard against invalid packets, which is a hook for
	// every packet; other bars hold there. A stage without bars is judged by none.
	guarded, unbarred bool
	// sharedBase compares with the first stage of the group: this stage cannot be
	// as the node was found.
	sharedBase bool
}

// measurement is one kind in a group.
type measurement struct {
	kind     meter.Kind
	what     string
	unit     string
	to       string // the pod that is called
	n, times int
}

// per is how many nanoseconds the unit has.
func (m measurement) per() float64 {
	if strings.HasPrefix(m.unit, "µs") {
		return 1000
	}
	return 1
}

func established() measurement {
	return measurement{meter.Established, "established packet", "ns", "near", 10_000, 3}
}

func first() measurement {
	return measurement{meter.First, "first packet of a flow", "ns", "near", 4000, 3}
}

func connection() measurement {
	return measurement{meter.Connection, "request on a connection of its own", "µs CPU", "far", 500, 3}
}

func keepalive() measurement {
	return measurement{meter.Keepalive, "request on a connection that stays", "µs CPU", "far", 2000, 3}
}

func stream() measurement {
	return measurement{meter.Stream, "stream", "ns CPU per KiB", "far", 16 << 10, 3}
}

func everything() []measurement {
	return []measurement{established(), first(), connection(), keepalive(), stream()}
}

const (
	noAgent = "no agent"
	again   = "no agent again"
)

// usual is the cluster of the rows that vary something else.
func usual() shape { return shape{pods: 8000, policies: 1, onPod: 1} }

func agentArgs(datapath, guard string) []string {
	return []string{"--datapath=" + datapath, "--invalid-guard=" + guard}
}

// setting is a stage with an agent in the usual way: judged once per connection,
// no guard, routed.
func setting(name string, s shape) subject {
	return subject{name: name, plan: plan{wiring: lab.Routed, shape: s, agent: agentArgs("nat", "off")},
		modes: []mode{{name: noAgent}, {name: name, awake: true}}}
}

func (s subject) on(w lab.Wiring) subject {
	s.plan.wiring = w
	return s
}

func (s subject) with(datapath, guard string) subject {
	s.plan.agent, s.guarded, s.unbarred = agentArgs(datapath, guard), guard == "on", datapath == "filter"
	return s
}

// twice measures the base of the first stage a second time.
func twice(list []subject) []subject {
	list[0].modes = slices.Insert(list[0].modes, 1, mode{name: again, unfiltered: list[0].modes[0].unfiltered})
	return list
}

// barOf is the bar of a row; only two kinds have one.
func (s subject) barOf(kind meter.Kind, m mode) *bench.Bar {
	switch {
	case !m.awake || s.unbarred:
	case kind == meter.Established && s.guarded:
		return &bench.Bar{Text: "median ≤ 1.025", Ratio: 1.025}
	case kind == meter.Established:
		return &bench.Bar{Text: "includes 1, ends ≤ 1.01", One: true, End: 1.01}
	case kind == meter.Connection && s.guarded:
		return &bench.Bar{Text: "median ≤ 1.05", Ratio: 1.05}
	case kind == meter.Connection:
		return &bench.Bar{Text: "median ≤ 1.02, ends ≤ 1.03", Ratio: 1.02, End: 1.03}
	}
	return nil
}

func allGroups() []group {
	return append([]group{pods(), datapaths(), policies(), cidrs(), family(), wiring()}, found()...)
}

func pods() group {
	g := group{name: "pods", title: "pods", proxied: true, measurements: everything(),
		plot: &bench.Plot{Name: "packets-pods",
			Title: "Cost against the size of the cluster", X: "pods in the cluster", Y: "ratio to no agent",
			LogX: true}}
	for _, n := range []int{100, 2000, 8000, 100_000} {
		s := usual()
		s.pods = n
		one := setting(count(n)+" pods", s)
		one.x = float64(n)
		g.subjects = append(g.subjects, one)
	}
	twice(g.subjects)
	return g
}

func datapaths() group {
	big := usual()
	big.pods = 100_000
	return group{name: "datapath", title: "datapath", proxied: true, measurements: everything(),
		subjects: twice([]subject{
			setting("nat, guard off", usual()),
			setting("nat, guard on", usual()).with("nat", "on"),
			setting("nat, guard on, 100,000 pods", big).with("nat", "on"),
			setting("filter", usual()).with("filter", "auto"),
		})}
}

func policies() group {
	g := group{name: "policies", title: "policies", measurements: []measurement{established(), first(), connection()}}
	for _, n := range []int{1, 100, 1000} {
		s := usual()
		s.policies = n
		g.subjects = append(g.subjects, setting(count(n)+" on the node", s))
	}
	for _, n := range []int{10, 100} {
		s := usual()
		s.onPod = n
		g.subjects = append(g.subjects, setting(count(n)+" on the pod that is called", s))
	}
	twice(g.subjects)
	return g
}

func cidrs() group {
	g := group{name: "cidrs", title: "CIDRs", measurements: []measurement{established(), first(), connection()}}
	for _, n := range []int{10, 10_000} {
		s := usual()
		s.cidrs = n
		g.subjects = append(g.subjects, setting(count(n)+" CIDRs as peers", s))
	}
	twice(g.subjects)
	return g
}

func family() group {
	s := usual()
	s.v6 = true
	return group{name: "family", title: "IPv6", proxied: true, measurements: everything(), subjects: twice([]subject{
		setting("8,000 pods", s), setting("8,000 pods, guard on", s).with("nat", "on")})}
}

func wiring() group {
	return group{name: "wiring", title: "bridge", proxied: true, measurements: everything(), subjects: twice([]subject{
		setting("8,000 pods", usual()).on(lab.Bridge),
		setting("8,000 pods, guard on", usual()).on(lab.Bridge).with("nat", "on"),
	})}
}

// choose returns the groups that are asked for.
func choose(cfg Config) ([]group, error) {
	for _, name := range cfg.Groups {
		if !slices.Contains(Groups[:], name) {
			return nil, fmt.Errorf("unknown group %q, want some of %s", name, strings.Join(Groups[:], ", "))
		}
	}
	var list []group
	for _, g := range allGroups() {
		if len(cfg.Groups) > 0 && !slices.Contains(cfg.Groups, g.name) {
			continue
		}
		list = append(list, g)
	}
	switch {
	case len(cfg.Peers) > 0:
		list = append(list, besides(cfg.Peers))
	case slices.Contains(cfg.Groups, peersGroup):
		return nil, errors.New("there are no peers to measure")
	}
	for i := range list {
		list[i].adapt(cfg)
	}
	return list, nil
}

// adapt changes what the configuration says about all groups. Two groups have
// their own wiring.
func (g *group) adapt(cfg Config) {
	for i := range g.subjects {
		if cfg.Wiring != "" && g.name != "wiring" && g.name != "found" {
			g.subjects[i].plan.wiring = cfg.Wiring
		}
	}
	if cfg.Quick {
		g.shrink()
	}
}

// quickPods are enough to see that it works.
const quickPods = 200

// shrink leaves of a group what shows that it works.
func (g *group) shrink() {
	if g.name != peersGroup {
		g.subjects = g.subjects[:min(len(g.subjects), 3)]
	}
	for i := range g.subjects {
		s := &g.subjects[i].plan.shape
		s.pods, s.cidrs, s.policies = min(s.pods, quickPods), min(s.cidrs, 100), min(s.policies, 100)
	}
	for i := range g.measurements {
		g.measurements[i].n /= 20
	}
}

// count writes 8000 as 8,000.
func count(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}

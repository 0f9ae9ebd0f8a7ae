// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"math"
	"time"
)

// scenario is something that happens to a cluster, and what must hold meanwhile.
type scenario struct {
	name     string
	short    bool // also tried where only a choice of specs is
	gate     bool // needs the start gate
	few      bool // needs nodes with few addresses, and the others do not want them
	services bool // needs that podwall serves Services
	last     bool // tried after the specs, because podwall is gone then
	try      func(ctx context.Context, t *trial) error
}

// trial is a scenario that runs.
type trial struct {
	*world
	result *Scenario
}

func (t *trial) figure(name string, value float64, unit string) {
	value = math.Round(value*10) / 10
	t.result.Figures = append(t.result.Figures, Figure{name, value, unit})
	t.say("%s: %s: %g %s", t.result.Name, name, value, unit)
}

// scenarios are in the order in which they are tried.
func scenarios() []scenario {
	return []scenario{
		{name: "init containers", short: true, try: initContainers},
		{name: "update of the DaemonSet", short: true, try: updateDaemonSet},
		{name: "start times", gate: true, try: startTimes},
		{name: "rolling updates on a busy node", gate: true, try: rollingUpdates},
		{name: "short pods on few addresses", few: true, try: shortPods},
		{name: "drain", try: drain},
		{name: "reboot", gate: true, try: reboot},
		{name: "upgrade and rollback", try: upgrades},
		{name: "gate older than the agent", gate: true, try: olderGate},
		{name: "services", short: true, services: true, try: services},
		{name: "services while pods are replaced", short: true, services: true, try: servicesRollout},
		{name: "services while agents are replaced", short: true, services: true, try: servicesRestart},
		{name: "to kube-proxy and back", short: true, services: true, last: true, try: toKubeProxyAndBack},
		{name: "uninstall", short: true, last: true, try: uninstall},
		{name: "helm", last: true, try: byHelm},
	}
}

func (s *settings) tryScenarios(ctx context.Context, w *world, f *found, passed map[string]bool, save func() error,
	last bool) error {
	for _, sc := range scenarios() {
		if sc.last != last || passed[sc.name] || !w.plan.tries(sc) || !s.try.MatchString(sc.name) {
			continue
		}
		began := time.Now()
		r := &Scenario{Name: sc.name}
		w.say("%s: begins", sc.name)
		err := sc.try(ctx, &trial{w, r})
		if ctx.Err() != nil {
			return ctx.Err() // it was not allowed to end
		}
		r.Passed, r.Seconds = err == nil, time.Since(began).Seconds()
		if err != nil {
			r.Failure = err.Error()
		}
		w.say("%s: %s", sc.name, verdict(r.Passed, r.Failure))
		f.scenarios = append(f.scenarios, r)
		if err := save(); err != nil {
			return err
		}
	}
	return nil
}

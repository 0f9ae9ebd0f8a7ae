// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/podwall/podwall/internal/lab/process"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// What the sections and some rows are called.
const (
	sectionSync   = "first sync: "
	sectionIdle   = "change to kernel, one at a time: "
	sectionLoad   = "change to kernel, 100 changes a second: "
	sectionCost   = "processor: "
	sectionMemory = "memory: "

	rowEnforced = "caches filled to enforced"
	rowIdle     = "idle, verification every second, % of a core"
	rowPeak     = "agent, highest (VmHWM) after the first sync"
)

// meter takes the figures of one cluster.
type meter struct {
	*world
	cfg    Config
	name   string
	effort effort
	table  table
}

// syncs starts the agent on a node without rules, once a round. The last one
// stays.
func (m *meter) syncs(ctx context.Context) error {
	for i := range m.cfg.Rounds {
		m.cfg.say("%s: first sync, round %d", m.name, i+1)
		if err := m.restart(); err != nil {
			return err
		}
		ready, err := m.agent.ready(ctx)
		if err != nil {
			return err
		}
		now, peak, err := m.agent.Memory()
		if err != nil {
			return err
		}
		cpu, err := m.agent.CPU()
		if err != nil {
			return err
		}
		filled, err := m.agent.said(ctx, "first sync complete")
		if err != nil {
			return err
		}
		enforced, err := m.agent.said(ctx, "policies are enforced")
		if err != nil {
			return err
		}
		m.table.add(sectionSync+m.name, "ms", "start to ready", milliseconds(ready))
		m.table.add(sectionSync+m.name, "ms", "start to caches filled", milliseconds(filled.Sub(m.agent.Started())))
		m.table.add(sectionSync+m.name, "ms", rowEnforced, milliseconds(enforced.Sub(filled)))
		m.table.add(sectionCost+m.name, "", "start to ready, CPU s", cpu.Seconds())
		m.table.add(sectionMemory+m.name, "MiB", rowPeak, peak/mebi)
		m.table.add(sectionMemory+m.name, "MiB", "agent, resident after the first sync", now/mebi)
	}
	return m.watch()
}

// rest watches an agent that has nothing to do.
func (m *meter) rest(ctx context.Context) error {
	m.cfg.say("%s: idle", m.name)
	for range m.cfg.Rounds {
		cpu, _, err := m.spent(func() error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(m.effort.rest):
				return nil
			}
		})
		if err != nil {
			return err
		}
		m.table.add(sectionCost+m.name, "", rowIdle, 100*cpu.Seconds()/m.effort.rest.Seconds())
	}
	now, _, err := m.agent.Memory()
	m.table.add(sectionMemory+m.name, "MiB", "agent, resident when idle", now/mebi)
	return err
}

// spent returns the agent's processor time and the time that f took.
func (m *meter) spent(f func() error) (cpu, took time.Duration, err error) {
	before, err := m.agent.CPU()
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return 0, 0, err
	}
	took = time.Since(start)
	after, err := m.agent.CPU()
	return after - before, took, err
}

// eachCollection is how many turns go by until this process collects its garbage.
const eachCollection = 25

// changes makes each kind of change, one at a time. The kinds take turns within
// a round. This process holds all objects of the cluster: it collects its garbage
// between turns only, so that no time of the agent contains that.
func (m *meter) changes(ctx context.Context) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	turns := 0
	for i := range m.cfg.Rounds {
		m.cfg.say("%s: single changes, round %d", m.name, i+1)
		times := map[string][]float64{}
		for _, c := range cycles() {
			for range c.times(m.effort) {
				if turns%eachCollection == 0 {
					runtime.GC()
				}
				if err := m.turn(ctx, c.steps(m.world, turns), times); err != nil {
					return err
				}
				turns++
			}
		}
		m.quantiles(sectionIdle+m.name, times)
	}
	return nil
}

// load makes a stream of changes, for a minute in all.
func (m *meter) load(ctx context.Context) error {
	l, err := newLoad(ctx, m.world, m.effort.lag)
	if err != nil {
		return err
	}
	for i := range m.cfg.Rounds {
		m.cfg.say("%s: %d changes a second, round %d", m.name, rate, i+1)
		var times []float64
		cpu, took, err := m.spent(func() (err error) {
			times, err = l.run(ctx, i*m.effort.changes, m.effort.changes)
			return err
		})
		if err != nil {
			return err
		}
		m.quantiles(sectionLoad+m.name, map[string][]float64{"pods and labels of another node": times})
		m.table.add(sectionCost+m.name, "", "under load, CPU s for 1,000 changes",
			1000*cpu.Seconds()/float64(len(times)))
		m.table.add(sectionCost+m.name, "", "under load, % of a core", 100*cpu.Seconds()/took.Seconds())
	}
	now, _, err := m.agent.Memory()
	if err != nil {
		return err
	}
	m.table.add(sectionMemory+m.name, "MiB", "agent, resident after the load", now/mebi)
	return l.clear(ctx, m.cfg.Rounds*m.effort.changes)
}

// verify lets somebody else change the agent's table and change it back, which
// makes the agent compare everything, and takes the agent's own time of that.
func (m *meter) verify(ctx context.Context) error {
	if _, err := exec.LookPath("nft"); err != nil {
		m.cfg.say("%s: full verification is left out, there is no program nft", m.name)
		return nil
	}
	m.cfg.say("%s: full verification", m.name)
	for range m.cfg.Rounds {
		before, err := m.agent.status(ctx)
		if err != nil {
			return err
		}
		cpu, _, err := m.spent(func() error {
			if err := m.disturb(); err != nil {
				return err
			}
			var s status
			err := process.Until(ctx, "everything to be compared", func(ctx context.Context) (bool, error) {
				s, err = m.agent.status(ctx)
				return err == nil && s.LastApply.Kind == "full" && s.LastApply.Time.After(before.LastApply.Time), nil
			}, m.agent.Process)
			m.table.add(sectionCost+m.name, "", "full verification, ms", 1000*s.LastApply.Seconds)
			return err
		})
		if err != nil {
			return err
		}
		m.table.add(sectionCost+m.name, "", "full verification, CPU ms (the status page's included)", milliseconds(cpu))
	}
	return nil
}

// disturb adds a chain to the agent's table and takes it away again.
func (m *meter) disturb() error {
	const text = "add chain inet %[1]s disturbance\ndelete chain inet %[1]s disturbance\n"
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = bytes.NewReader(fmt.Appendf(nil, text, ruleset.TableName))
	if err := process.Run(m.node.NS, cmd); err != nil {
		return fmt.Errorf("changing the agent's table: %w", err)
	}
	return nil
}

// kernelMemory removes the table and takes the kernel's memory before and after.
// Other programs move the same figure, by some 100 kB on a quiet machine.
func (m *meter) kernelMemory(ctx context.Context) error {
	m.cfg.say("%s: kernel memory", m.name)
	s, err := m.agent.status(ctx)
	if err != nil {
		return err
	}
	// Without a listener no notification waits for its reader in kernel memory.
	err = m.witness.Close()
	m.witness = nil
	if err != nil {
		return err
	}
	err = m.agent.Stop()
	m.agent = nil
	if err != nil {
		return err
	}
	pause(ctx, m.effort.settle)
	before, err := slab()
	if err != nil {
		return err
	}
	if err := m.program.cleanup(); err != nil {
		return err
	}
	pause(ctx, m.effort.settle)
	after, err := slab()
	m.table.add(sectionMemory+m.name,
		"MiB", fmt.Sprintf("kernel, %d elements, %d sets, %d rules (noise: about 0.5 MiB)", s.Elements, s.Sets,
			s.Rules), (before-after)/mebi)
	return err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

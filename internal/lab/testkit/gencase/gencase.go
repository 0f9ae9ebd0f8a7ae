// SPDX-License-Identifier: Apache-2.0

// Package gencase makes random cases of package cases: a small cluster that a
// bed of package lab can wire, random policies of package gen, and a history of
// changes. It owns the choice of addresses, names, blocks and probes; it never
// judges anything, so the expected matrices are empty.
//
// A case is a function of its seed and of nothing else.
package gencase

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/podwall/podwall/internal/lab/cases"
)

// Case returns the case of a seed: so many states of one cluster, each a change
// of the one before. A state is one step, or two when the cluster has both
// families.
func Case(seed uint64, states int) cases.Case {
	return rapid.Custom(func(t *rapid.T) cases.Case { return Draw(t, seed, states) }).Example(int(seed))
}

// Draw draws a case inside a property; seed is only what the steps are named
// after.
func Draw(t *rapid.T, seed uint64, states int) cases.Case {
	w := newWorld(t)
	var c cases.Case
	for state := range states {
		if state > 0 {
			w.change(t)
		}
		probes := w.probes(t)
		for _, family := range w.families {
			step := w.step(family, probes)
			step.ID = fmt.Sprintf("random-%d-%d-%s", seed, state+1, family)
			step.Source, step.Case = "package gencase", int(seed)
			step.Description = fmt.Sprintf("seed %d, state %d", seed, state+1)
			c.Steps = append(c.Steps, step)
		}
	}
	for i, step := range c.Steps {
		step.Step, step.Steps = i+1, len(c.Steps)
	}
	return c
}

// world is the cluster while it changes.
type world struct {
	families   []string
	namespaces []cases.Namespace
	pods       []cases.Pod
	policies   []networkingv1.NetworkPolicy
}

// step returns the state as it is now. Nothing of it is shared with later
// states.
func (w *world) step(family string, probes []cases.Probe) *cases.Step {
	s := &cases.Step{Schema: cases.Schema, Family: family, Namespaces: slices.Clone(w.namespaces),
		Pods: slices.Clone(w.pods), Externals: w.externals(), Probes: slices.Clone(probes)}
	for i := range w.policies {
		s.Policies = append(s.Policies, *w.policies[i].DeepCopy())
	}
	for _, p := range s.Pods {
		if p.Phase == "" && has(p.Addrs(), family) {
			s.Endpoints = append(s.Endpoints, p.Key().String())
		}
	}
	for _, e := range s.Externals {
		s.Endpoints = append(s.Endpoints, e.Name)
	}
	return s
}

// pick chooses one of a list.
func pick[T any](t *rapid.T, label string, list ...T) T {
	return list[rapid.IntRange(0, len(list)-1).Draw(t, label)]
}

// rarely is true in about one case of n.
func rarely(t *rapid.T, label string, n int) bool {
	return rapid.IntRange(1, n).Draw(t, label) == n
}

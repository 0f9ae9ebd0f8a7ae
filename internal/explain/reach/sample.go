// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"context"
	"maps"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain/matrix"
)

// Sample are two pods between which a flow is allowed, or is not. An end that is a host has no key.
type Sample struct {
	Source, Destination cluster.Key
	Allowed             bool
}

// Samples returns flows from one workload or host to another, at most one of each verdict, the
// allowed one first. Of a workload to itself they are between two of its pods. It ends early, with
// the error of ctx, when ctx ends.
func (m *Map) Samples(ctx context.Context, port matrix.Port, src, dst *Unit) (list []Sample, err error) {
	r := m.relation(port)
	var found [2]*Sample
	for _, x := range slices.Sorted(maps.Keys(src.addresses)) {
		for _, y := range slices.Sorted(maps.Keys(dst.addresses)) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			from, to := m.classes[x], m.classes[y]
			s, ok := sample(src, dst, x, y)
			if !ok || from.v6 != to.v6 || from.host && to.host {
				continue
			}
			v, err := m.verdict(r, x, y)
			if err != nil {
				return nil, err
			}
			s.Allowed = v != denied
			if i := index(s.Allowed); found[i] == nil {
				found[i] = &s
			}
		}
	}
	for _, s := range found {
		if s != nil {
			list = append(list, *s)
		}
	}
	return list, nil
}

func index(allowed bool) int {
	if allowed {
		return 0
	}
	return 1
}

// sample returns two pods, of which one is in each class.
func sample(src, dst *Unit, x, y int) (Sample, bool) {
	sources, destinations := src.some[x], dst.some[y]
	if len(src.Pods) == 0 {
		sources = []cluster.Key{{}}
	}
	if len(dst.Pods) == 0 {
		destinations = []cluster.Key{{}}
	}
	for _, s := range sources {
		for _, d := range destinations {
			if s != d {
				return Sample{Source: s, Destination: d}, true
			}
		}
	}
	return Sample{}, false
}

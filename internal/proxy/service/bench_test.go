// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
)

func BenchmarkIndex(b *testing.B) {
	for _, size := range [][2]int{{10, 2}, {10_000, 2}, {1000, 50}, {1, 1000}} {
		snap := many(size[0], min(size[1], 250))
		if size[1] > 250 {
			widen(snap.Slices[0], size[1])
		}
		b.Run(fmt.Sprintf("build/%dx%d", size[0], size[1]), func(b *testing.B) {
			for b.Loop() {
				NewIndex(Settings{Node: "one"}).apply(all(snap))
			}
			before := heap()
			x := NewIndex(Settings{Node: "one"})
			x.apply(all(snap))
			b.ReportMetric(float64(heap()-before)/float64(size[0]), "B/Service")
			runtime.KeepAlive(x)
		})
		x := NewIndex(Settings{Node: "one"})
		x.apply(all(snap))
		less := *snap.Slices[0]
		less.Endpoints = slices.Clone(less.Endpoints[1:])
		b.Run(fmt.Sprintf("change/%dx%d", size[0], size[1]), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				c := cluster.Change[cluster.EndpointSlice]{Old: snap.Slices[0], New: &less}
				if i%2 == 1 {
					c.Old, c.New = c.New, c.Old
				}
				x.apply(&cluster.ServiceDelta{Slices: []cluster.Change[cluster.EndpointSlice]{c}})
				x.Model()
			}
		})
	}
}

// widen gives a slice more endpoints.
func widen(s *cluster.EndpointSlice, n int) {
	for i := range n {
		e := s.Endpoints[0]
		for range i {
			e.Addr = e.Addr.Next()
		}
		s.Endpoints = append(s.Endpoints, e)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/lab/testkit/scale"
	"github.com/podwall/podwall/internal/netpol/policy"
)

// big is a cluster of a shape, in a store and in an index.
type big struct {
	scale.Shape
	store *cluster.Store
	index *policy.Index
	in    *convert.Interner
}

func newBig(s scale.Shape) *big {
	b := &big{Shape: s, store: cluster.NewStore(), index: policy.NewIndex(scale.NodeName(0)),
		in: convert.NewInterner().OnNode(scale.NodeName(0))}
	s.Fill(b.store)
	b.pass()
	return b
}

// pass does what a turn of the agent's loop does, up to the model.
func (b *big) pass() *policy.Model {
	b.index.Apply(b.store.Take())
	return b.index.Model()
}

// relabel gives pod i another application.
func (b *big) relabel(i, app int) {
	p := *b.in.Pod(b.Pod(i))
	p.Labels = cluster.NewLabels(map[string]string{"app": fmt.Sprintf("app-%d", app),
		"role": fmt.Sprintf("role-%d", app%3)})
	b.store.Update(func(tx *cluster.Tx) { tx.SetPod(&p) })
}

// remote returns a pod of another node, in namespace 0.
func (b *big) remote(i int) int { return (1 + i%(b.Nodes-1)) * b.Namespaces }

type size struct {
	name string
	scale.Shape
}

func sizes() []size {
	return []size{{"8k", scale.Seed()}, {"100k", scale.Large()}, {"profile", scale.Profile()}}
}

func BenchmarkPodChange(b *testing.B) {
	for _, size := range sizes() {
		b.Run(size.name, func(b *testing.B) {
			w := newBig(size.Shape)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				w.relabel(w.remote(0), i%2)
				w.pass()
			}
		})
	}
}

// A policy that selects no pod of this node must cost next to nothing, one that
// does costs what this node has.
func BenchmarkPolicyChange(b *testing.B) {
	for _, size := range sizes() {
		for _, where := range []string{"elsewhere", "here"} {
			b.Run(size.name+"/"+where, func(b *testing.B) {
				w := newBig(size.Shape)
				p := w.extra(where == "here")
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					w.toggle(p, i)
					w.pass()
				}
			})
		}
	}
}

// extra returns a policy that is not there yet, in a namespace that has pods on
// this node or in one that has none.
func (b *big) extra(here bool) *cluster.Policy {
	ns := 0
	for b.localTo(ns) != here {
		ns++
	}
	np := b.Policy(0)
	np.Name, np.Namespace = "extra", scale.NamespaceName(ns)
	p, _ := convert.Policy(np)
	return p
}

// toggle adds a policy in even rounds and removes it in odd ones.
func (b *big) toggle(p *cluster.Policy, round int) {
	b.store.Update(func(tx *cluster.Tx) {
		if round%2 == 0 {
			tx.SetPolicy(p)
		} else {
			tx.DeletePolicy(p.Key)
		}
	})
}

// localTo reports whether a pod of the namespace runs on this node.
func (b *big) localTo(ns int) bool {
	for i := ns; i < b.Pods; i += b.Namespaces {
		if b.Pod(i).Spec.NodeName == scale.NodeName(0) {
			return true
		}
	}
	return false
}

// A namespace with thousands of pods gets another label.
func BenchmarkNamespaceRelabel(b *testing.B) {
	for _, pods := range []int{1_000, 10_000} {
		for _, matters := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/matters=%t", pods, matters), func(b *testing.B) {
				w := newBig(scale.Shape{Namespaces: 10, Pods: 10 * pods, Policies: 500, Nodes: 1_000, Apps: 10})
				n := convert.Namespace(w.Namespace(1))
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					labels := map[string]string{"kubernetes.io/metadata.name": n.Name, "other": fmt.Sprint(i)}
					if matters && i%2 == 0 {
						labels["tier"] = "shared"
					}
					w.store.Update(func(tx *cluster.Tx) {
						tx.SetNamespace(&cluster.Namespace{Name: n.Name, Labels: cluster.NewLabels(labels)})
					})
					w.pass()
				}
			})
		}
	}
}

// The first pass over a filled store.
func BenchmarkFirstSync(b *testing.B) {
	for _, size := range sizes() {
		b.Run(size.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				store, index := cluster.NewStore(), policy.NewIndex(scale.NodeName(0))
				size.Fill(store)
				delta := store.Take()
				b.StartTimer()
				index.Apply(delta)
				index.Model()
			}
		})
	}
}

// BenchmarkMemory prints the live heap of store and index for each pod, beside
// an equal cluster with a tenth of the pods.
func BenchmarkMemory(b *testing.B) {
	for _, pods := range []int{8_000, 50_000, 100_000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			var bytes float64
			for b.Loop() {
				bytes = heapPerPod(pods)
			}
			b.ReportMetric(bytes, "B/pod")
		})
	}
}

func heapPerPod(pods int) float64 {
	shape := scale.Shape{Namespaces: 100, Pods: pods / 10, Policies: 500, Nodes: 1_000, Apps: 10}
	few := heapOf(shape)
	shape.Pods = pods
	return float64(heapOf(shape)-few) / float64(pods-pods/10)
}

// heapOf returns the bytes that a cluster takes after the first pass.
func heapOf(s scale.Shape) int64 {
	before := live()
	w := newBig(s)
	w.in = nil
	after := live()
	runtime.KeepAlive(w)
	return after - before
}

func live() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/agent"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/cluster/convert"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/lab/netns"
	"github.com/podwall/podwall/internal/lab/testkit/scale"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/observe"
)

// timed notes when what was asked for is in the kernel.
type timed struct {
	*datapath.Datapath
	passed chan struct{} // after each Apply; holds at most one

	mu       sync.Mutex // guards what follows
	asked    []time.Time
	took     []time.Duration
	passes   int
	elements int
}

// ask notes that something changes now.
func (k *timed) ask() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, time.Now())
}

// Apply is called after the changes were taken, so it answers all that were
// asked for before.
func (k *timed) Apply(ctx context.Context, p *program.Program) (datapath.Report, error) {
	k.mu.Lock()
	asked := k.asked
	k.asked = nil
	k.mu.Unlock()
	r, err := k.Datapath.Apply(ctx, p)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, at := range asked {
		k.took = append(k.took, time.Since(at))
	}
	k.passes++
	k.elements += r.Elements
	select {
	case k.passed <- struct{}{}:
	default:
	}
	return r, err
}

// node is an agent without its API server, on a kernel of its own.
type node struct {
	scale.Shape
	kernel *timed
	store  *cluster.Store
	in     *convert.Interner
	first  time.Duration // the first sync
	period time.Duration
}

func (n *node) run(b *testing.B, f func()) {
	b.Helper()
	wires(b)
	log := slog.New(slog.DiscardHandler)
	d, err := datapath.Open(datapath.Options{}, log)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	n.kernel, n.store, n.in = &timed{Datapath: d, passed: make(chan struct{}, 1)}, cluster.NewStore(), convert.NewInterner()
	n.Fill(n.store)
	loop := &agent.Loop{Node: scale.NodeName(0), Store: n.store, Kernel: n.kernel, Log: log, SyncPeriod: n.period, SyncTimeout: time.Minute,
		Observer: observe.New(observe.NewRegistry(), observe.Info{Node: scale.NodeName(0)})}
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	start := time.Now()
	running.Go(func() { _ = d.Watch(ctx) })
	running.Go(func() {
		if err := loop.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	<-n.kernel.passed
	n.first = time.Since(start)
	n.settle()
	f()
	stop()
	running.Wait()
}

// settle waits until the loop has been still for a while.
func (n *node) settle() {
	for {
		select {
		case <-n.kernel.passed:
		case <-time.After(300 * time.Millisecond):
			n.kernel.mu.Lock()
			n.kernel.took, n.kernel.passes, n.kernel.elements = nil, 0, 0
			n.kernel.mu.Unlock()
			return
		}
	}
}

// wires makes a pair of links into another namespace, so that the pods' addresses
// lead somewhere.
func wires(b *testing.B) {
	b.Helper()
	away, err := netns.New()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = away.Close() })
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pods"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(away.FD())}
	if err = netlink.LinkAdd(veth); err == nil {
		err = netlink.LinkSetUp(veth)
	}
	dst, _ := netlink.ParseIPNet("10.64.0.0/10")
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Dst: dst, Scope: netlink.SCOPE_LINK})
	}
	if err != nil {
		b.Fatal(err)
	}
}

// change gives pod i another label that matters, or takes it back.
func (n *node) change(i, round int) {
	pod := n.Pod(i)
	pod.Labels["role"] = fmt.Sprintf("role-%d", round%3)
	pod.Labels["round"] = fmt.Sprint(round) // always a change
	pod.Labels["app"] = fmt.Sprintf("app-%d", round%n.Apps)
	p := n.in.Pod(pod)
	n.kernel.ask()
	n.store.Update(func(tx *cluster.Tx) { tx.SetPod(p) })
}

// pods returns the pods of this node, or up to a hundred others of namespace 0.
func (n *node) pods(local bool) (list []int) {
	for i := 0; i < n.Pods && (local || len(list) < 100); i++ {
		here := n.Pod(i).Spec.NodeName == scale.NodeName(0)
		if here == local && (local || i%n.Namespaces == 0) {
			list = append(list, i)
		}
	}
	return list
}

// BenchmarkEventToCommit measures from the change of a pod's labels to the end of
// its transaction: of remote pods and of local ones, one after the other, and of
// any a hundred a second.
func BenchmarkEventToCommit(b *testing.B) {
	for _, size := range []struct {
		name string
		scale.Shape
	}{{"8k", scale.Seed()}, {"100k", scale.Large()}} {
		for _, where := range []string{"idle", "local"} {
			b.Run(size.name+"-"+where, func(b *testing.B) {
				inOwnNamespace(b, func(b *testing.B) map[string]float64 {
					n := &node{Shape: size.Shape, period: time.Second}
					pods := n.pods(where == "local")
					n.run(b, func() {
						for i := range 300 {
							n.change(pods[i%len(pods)], i)
							<-n.kernel.passed
							time.Sleep(25 * time.Millisecond) // idle again
						}
					})
					return n.figures()
				})
			})
		}
		b.Run(size.name+"-load", func(b *testing.B) {
			inOwnNamespace(b, func(b *testing.B) map[string]float64 {
				n := &node{Shape: size.Shape, period: time.Second}
				var used time.Duration
				n.run(b, func() {
					before := cpu()
					tick := time.NewTicker(10 * time.Millisecond)
					defer tick.Stop()
					for i := range 500 {
						<-tick.C
						n.change(i*13%n.Pods, i+1)
					}
					time.Sleep(50 * time.Millisecond)
					used = cpu() - before
				})
				figures := n.figures()
				figures["cpu-ms/change"] = float64(used.Microseconds()) / 1000 / 500
				return figures
			})
		})
	}
}

// figures returns what was measured.
func (n *node) figures() map[string]float64 {
	k := n.kernel
	slices.Sort(k.took)
	at := func(share int) float64 { return float64(k.took[len(k.took)*share/100].Microseconds()) / 1000 }
	return map[string]float64{
		"ms-p50": at(50), "ms-p99": at(99), "ms-first-sync": float64(n.first.Microseconds()) / 1000,
		"passes/change": float64(k.passes) / float64(len(k.took)), "elements/change": float64(k.elements) / float64(len(k.took)),
		"MiB-peak": peak(),
	}
}

// BenchmarkIdle measures an agent that has nothing to do, with a verification
// each second.
func BenchmarkIdle(b *testing.B) {
	inOwnNamespace(b, func(b *testing.B) map[string]float64 {
		var used time.Duration
		n := &node{Shape: scale.Seed(), period: time.Second}
		n.run(b, func() {
			used = cpu()
			time.Sleep(10 * time.Second)
			used = cpu() - used
		})
		return map[string]float64{"%core": used.Seconds() * 10, "passes": float64(n.kernel.passes), "MiB-peak": peak()}
	})
}

// cpu is the time that this process has taken.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the most memory that this process ever had, in MiB.
func peak() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	var kib float64
	_, line, _ := bytes.Cut(status, []byte("VmHWM:"))
	_, _ = fmt.Sscan(string(line), &kib)
	return kib / 1024
}

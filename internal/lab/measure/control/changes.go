// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/lab"
	"github.com/podwall/podwall/internal/lab/measure/control/listwatch"
)

// step is one change and what of it the kernel is expected to show.
type step struct {
	name   string
	gone   bool
	list   []netip.Addr
	change func(context.Context, listwatch.Object) (time.Time, error)
	object listwatch.Object
}

// cycle is a row of steps that leads back to where it began, so that it can be
// repeated. It is asked anew for each turn.
type cycle struct {
	times func(effort) int
	steps func(w *world, turn int) []step
}

// cycles are all kinds of changes that are measured one at a time.
func cycles() []cycle {
	return []cycle{
		{effort.often, podSteps},
		{effort.often, labelSteps},
		{effort.often, localSteps},
		{effort.often, policySteps},
		{effort.often, func(w *world, _ int) []step {
			return w.relabel("namespace of 8 pods", smallNS, w.shape.big,
				small)
		}},
		{effort.seldom, func(w *world, _ int) []step { return w.relabel(bigName(w.shape.big), bigNS, 0, w.shape.big) }},
	}
}

func podSteps(w *world, _ int) []step {
	p, ip, _ := w.remote("client", "web")
	return []step{
		{"pod of another node added", false, []netip.Addr{ip}, w.src.create, p},
		{"pod of another node removed", true, []netip.Addr{ip}, w.src.remove, p},
	}
}

// labelSteps begin and end with a step that is not measured: the pod that is
// relabelled comes and goes.
func labelSteps(w *world, _ int) []step {
	p, ip, n := w.remote("none", "none")
	in, out := client(n, "client", "none"), client(n, "none", "none")
	return []step{
		{"", false, nil, w.src.create, p},
		{"label of a pod lets it in", false, []netip.Addr{ip}, w.src.update, in},
		{"label of a pod takes it out", true, []netip.Addr{ip}, w.src.update, out},
		{"", false, nil, w.src.remove, out},
	}
}

func localSteps(w *world, turn int) []step {
	ip := ofLocal(1 + turn%visitors)
	p := newPod(benchNS, visitor(ip).Name, nodeName, ip, map[string]string{"app": "target"})
	return []step{
		{"", false, nil, w.wire(ip), nil},
		{"pod of this node added", false, []netip.Addr{ip}, w.src.create, p},
		{"pod of this node removed", true, []netip.Addr{ip}, w.src.remove, p},
		{"", false, nil, w.unwire(ip), nil},
	}
}

// unreported is how long a pod is wired before the API names its address. A
// kubelet starts the containers in that time; it is rarely as short.
const unreported = 100 * time.Millisecond

// wire returns the change that wires a pod as a CNI plugin does: a new pair of
// interfaces and a route, some time before the API names the address.
func (w *world) wire(ip netip.Addr) func(context.Context, listwatch.Object) (time.Time, error) {
	return func(ctx context.Context, _ listwatch.Object) (time.Time, error) {
		if _, err := w.bed.AddPod(lab.PodSpec{Key: visitor(ip), Node: nodeName, IPs: []netip.Addr{ip}}); err != nil {
			return time.Time{}, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(unreported):
		}
		return time.Now(), ctx.Err()
	}
}

func (w *world) unwire(ip netip.Addr) func(context.Context, listwatch.Object) (time.Time, error) {
	return func(context.Context, listwatch.Object) (time.Time, error) {
		return time.Now(), w.bed.RemovePod(visitor(ip))
	}
}

func visitor(ip netip.Addr) cluster.Key {
	return cluster.Key{Namespace: benchNS, Name: "visitor-" + ip.String()}
}

func policySteps(w *world, turn int) []step {
	before, after := ofPolicy(2*turn), ofPolicy(2*turn+1)
	write := func(ip netip.Addr) *networkingv1.NetworkPolicy {
		cidr := netip.PrefixFrom(ip, ip.BitLen()).String()
		return policyFor(benchNS,
			"written", "target", ingress(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}))
	}
	return []step{
		{"policy added", false, []netip.Addr{before}, w.src.create, write(before)},
		{"policy changed", false, []netip.Addr{after}, w.src.update, write(after)},
		{"policy removed", true, []netip.Addr{after}, w.src.remove, write(after)},
	}
}

// relabel lets a whole namespace in and takes it out.
func (w *world) relabel(name, ns string, from, pods int) []step {
	list := make([]netip.Addr, pods)
	for i := range list {
		list[i] = ofMoved(from + i)
	}
	in, out := namespace(ns, "moved"), namespace(ns, "no")
	return []step{
		{name + " relabelled, let in", false, list, w.src.update, in},
		{name + " relabelled, taken out", true, list, w.src.update, out},
	}
}

// pauseBetween is the rest between two changes that are measured alone.
const pauseBetween = 20 * time.Millisecond

// turn makes the steps of one cycle, one after the other, and adds the times in
// milliseconds.
func (w *world) turn(ctx context.Context, steps []step, times map[string][]float64) error {
	for _, s := range steps {
		act := func() (time.Time, error) { return s.change(ctx, s.object) }
		if s.list == nil {
			if _, err := act(); err != nil {
				return err
			}
		} else {
			took, err := w.timed(ctx, s.gone, s.list, act)
			if err != nil {
				return err
			}
			times[s.name] = append(times[s.name], milliseconds(took))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pauseBetween):
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

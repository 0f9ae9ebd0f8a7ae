// SPDX-License-Identifier: Apache-2.0

//go:build linux

package control

import (
	"context"
	"net/netip"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/podwall/podwall/internal/measure/control/listwatch"
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
		{effort.often, func(w *world, _ int) []step { return w.relabel("namespace of 8 pods", smallNS, w.shape.big, small) }},
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
	p := newPod(benchNS, "visitor-"+ip.String(), nodeName, ip, map[string]string{"app": "target"})
	return []step{
		{"pod of this node added", false, []netip.Addr{ip}, w.src.create, p},
		{"pod of this node removed", true, []netip.Addr{ip}, w.src.remove, p},
	}
}

func policySteps(w *world, turn int) []step {
	before, after := ofPolicy(2*turn), ofPolicy(2*turn+1)
	write := func(ip netip.Addr) *networkingv1.NetworkPolicy {
		cidr := netip.PrefixFrom(ip, ip.BitLen()).String()
		return policyFor(benchNS, "written", "target", ingress(networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}}))
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

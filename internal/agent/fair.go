// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"maps"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// fair stands between the store and the index. It lets the policies of a namespace
// wait while the namespace has spent more than its share of the loop's time, so
// that only its own author waits for a giant policy that is edited all the time.
// Pods and namespaces go on at once, but for one: a new pod of this node
// waits for the policies of its namespace, since it must not be judged by older
// ones. Until then it is closed, like every pod that is not known yet; where unknown pods
// are open, none waits.
//
// It is pure, but for its memory: the clock is an argument. It is used by the
// goroutine of the loop.
type fair struct {
	node     string
	open     bool // unknown pods are open, so that none may wait
	started  bool // the first delta is let through as it is
	accounts accounts
	waiting  map[string]*waiting
}

// waiting are the changes of a namespace that are not let through yet.
type waiting struct {
	policies map[cluster.Key]cluster.Change[cluster.Policy]
	pods     map[cluster.Key]cluster.Change[cluster.Pod]
	since    time.Time
}

const (
	// giant is from how many entries on a change lets others go first.
	giant = 1_024
	// onePass is how many entries of several namespaces go on together.
	onePass = 16_384
	// yields is for how long a namespace that is not in debt lets others go first.
	yields = 100 * time.Millisecond
)

func newFair(node string, open bool) *fair {
	return &fair{node: node, open: open, accounts: newAccounts(), waiting: map[string]*waiting{}}
}

// admit returns what of a delta goes on now, together with what waited for long
// enough. The rest waits.
func (f *fair) admit(d cluster.Delta, now time.Time) cluster.Delta {
	if !f.started {
		f.started = true
		return d
	}
	policies, pods := d.Policies, d.Pods
	d.Policies, d.Pods = nil, nil
	fresh := byNamespace(policies)
	others := len(pods)+len(d.Namespaces) > 0 || len(fresh) > 1
	sum := 0
	for _, ns := range slices.Sorted(maps.Keys(fresh)) {
		list := fresh[ns]
		n := entries(list)
		if f.waiting[ns] == nil && f.accounts.left(ns, now) >= 0 && !(others && n > giant) &&
			(sum == 0 || sum+n <= onePass) {
			d.Policies, sum = append(d.Policies, list...), sum+n
			continue
		}
		f.hold(ns, list, now)
	}
	for _, c := range pods {
		if c, ok := f.pod(c); ok {
			d.Pods = append(d.Pods, c)
		}
	}
	f.release(&d, now, !others && len(d.Policies) == 0)
	return d
}

// pod returns the change of a pod, unless it has to wait.
func (f *fair) pod(c cluster.Change[cluster.Pod]) (cluster.Change[cluster.Pod], bool) {
	p := c.New
	if p == nil {
		p = c.Old
	}
	w := f.waiting[p.Key.Namespace]
	if w == nil {
		return c, true
	}
	if held, ok := w.pods[p.Key]; ok {
		c.Old = held.Old
		delete(w.pods, p.Key)
	}
	// Whatever ends a pod, or tells of one that is there, goes on: its address may be
	// another's by now.
	if f.open || !starts(c, f.node) {
		return c, c.Old != nil || c.New != nil
	}
	w.pods[p.Key] = c
	return c, false
}

func (f *fair) hold(namespace string, list []cluster.Change[cluster.Policy], now time.Time) {
	w := f.waiting[namespace]
	if w == nil {
		w = &waiting{policies: map[cluster.Key]cluster.Change[cluster.Policy]{},
			pods: map[cluster.Key]cluster.Change[cluster.Pod]{}, since: now}
		f.waiting[namespace] = w
	}
	for _, c := range list {
		key := policyOf(c).Key
		if held, ok := w.policies[key]; ok {
			c.Old = held.Old
		}
		w.policies[key] = c
	}
}

// release lets the namespace through that waited longest and is not in debt: if
// nothing else goes on now, or if it let others go first for long enough.
func (f *fair) release(d *cluster.Delta, now time.Time, quiet bool) {
	var name string
	for ns, w := range f.waiting {
		if f.accounts.left(ns, now) >= 0 && (name == "" || w.since.Before(f.waiting[name].since)) {
			name = ns
		}
	}
	w := f.waiting[name]
	if w == nil || !quiet && now.Sub(w.since) < yields {
		return
	}
	delete(f.waiting, name)
	for _, c := range w.policies {
		if c.Old != nil || c.New != nil {
			d.Policies = append(d.Policies, c)
		}
	}
	d.Pods = slices.AppendSeq(d.Pods, maps.Values(w.pods))
}

// charge takes what a pass cost from the accounts of the namespaces that it was for.
func (f *fair) charge(units map[string]int, now time.Time) {
	for ns, n := range units {
		f.accounts.spend(ns, time.Duration(n)*unitCost, now)
	}
}

// next returns how long it is until something that waits may go on; ok is false if
// nothing waits.
func (f *fair) next(now time.Time) (wait time.Duration, ok bool) {
	most := time.Duration(-maxDebt)
	for ns := range f.waiting {
		most = max(most, f.accounts.left(ns, now))
	}
	return f.accounts.until(most), len(f.waiting) > 0
}

// held returns the pods that wait.
func (f *fair) held() map[cluster.Key]bool {
	keys := map[cluster.Key]bool{}
	for _, w := range f.waiting {
		for k := range w.pods {
			keys[k] = true
		}
	}
	return keys
}

// SPDX-License-Identifier: Apache-2.0

package expand

import (
	"reflect"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

func setNamespace(n *cluster.Namespace) Event {
	return Event{Kind: cluster.Namespaces, apply: func(tx *cluster.Tx) { tx.SetNamespace(n) }}
}

func setPod(p *cluster.Pod) Event {
	return Event{Kind: cluster.Pods, apply: func(tx *cluster.Tx) { tx.SetPod(p) }}
}

func setPolicy(p *cluster.Policy) Event {
	return Event{Kind: cluster.Policies, apply: func(tx *cluster.Tx) { tx.SetPolicy(p) }}
}

func noNamespace(name string) Event {
	return Event{Kind: cluster.Namespaces, Gone: true, apply: func(tx *cluster.Tx) { tx.DeleteNamespace(name) }}
}

func noPod(k cluster.Key) Event {
	return Event{Kind: cluster.Pods, Gone: true, apply: func(tx *cluster.Tx) { tx.DeletePod(k) }}
}

func noPolicy(k cluster.Key) Event {
	return Event{Kind: cluster.Policies, Gone: true, apply: func(tx *cluster.Tx) { tx.DeletePolicy(k) }}
}

// between returns the events that lead from one state to the next, deletions
// first.
func between(before, now *cluster.Snapshot) Step {
	s := slices.Concat(
		gone(before.Policies, now.Policies, policyKey, noPolicy),
		gone(before.Pods, now.Pods, podKey, noPod),
		gone(before.Namespaces, now.Namespaces, namespaceName, noNamespace))
	s = append(s, set(before.Namespaces, now.Namespaces, setNamespace)...)
	s = append(s, set(before.Pods, now.Pods, setPod)...)
	return append(s, set(before.Policies, now.Policies, setPolicy)...)
}

func gone[T any, K comparable](before, now []*T, key func(*T) K, event func(K) Event) Step {
	var s Step
	for _, o := range before {
		if !slices.ContainsFunc(now, func(n *T) bool { return key(n) == key(o) }) {
			s = append(s, event(key(o)))
		}
	}
	return s
}

func set[T any](before, now []*T, event func(*T) Event) Step {
	var s Step
	for _, o := range now {
		if !slices.ContainsFunc(before, func(b *T) bool { return reflect.DeepEqual(b, o) }) {
			s = append(s, event(o))
		}
	}
	return s
}

func namespaceName(n *cluster.Namespace) string { return n.Name }
func podKey(p *cluster.Pod) cluster.Key         { return p.Key }
func policyKey(p *cluster.Policy) cluster.Key   { return p.Key }
func copyOf[T any](o *T) *T                     { c := *o; return &c }
func copies[T any](list []*T) []*T {
	var c []*T
	for _, o := range list {
		c = append(c, copyOf(o))
	}
	return c
}

// relist is the whole state as lists, in another order and as other objects.
func relist(s *cluster.Snapshot) Step {
	namespaces, pods, policies := copies(s.Namespaces), copies(s.Pods), copies(s.Policies)
	slices.Reverse(namespaces)
	slices.Reverse(pods)
	slices.Reverse(policies)
	return Step{
		{Kind: cluster.Policies, apply: func(tx *cluster.Tx) { tx.ReplacePolicies(policies) }},
		{Kind: cluster.Pods, apply: func(tx *cluster.Tx) { tx.ReplacePods(pods) }},
		{Kind: cluster.Namespaces, apply: func(tx *cluster.Tx) { tx.ReplaceNamespaces(namespaces) }},
	}
}

// recreated deletes objects and creates them again, as other objects with the
// same content: one of each kind after every state, all of them at the end.
func recreated(states []*cluster.Snapshot) []Step {
	var steps []Step
	for i, s := range walk(states) {
		steps = append(steps, s)
		pairs := pairsOf(states[i])
		if i < len(states)-1 {
			pairs = slices.DeleteFunc(pairs, func(p pair) bool { return p.index != i%p.of })
		}
		for _, p := range pairs {
			steps = append(steps, Step{p.gone}, Step{p.again}, Step{p.gone, p.again})
		}
	}
	return steps
}

// pair is how an object goes and comes back; index is its place among the
// objects of its kind.
type pair struct {
	gone, again Event
	index, of   int
}

func pairsOf(s *cluster.Snapshot) []pair {
	var list []pair
	for i, n := range s.Namespaces {
		list = append(list, pair{noNamespace(n.Name), setNamespace(copyOf(n)), i, len(s.Namespaces)})
	}
	for i, p := range s.Pods {
		list = append(list, pair{noPod(p.Key), setPod(copyOf(p)), i, len(s.Pods)})
	}
	for i, p := range s.Policies {
		list = append(list, pair{noPolicy(p.Key), setPolicy(copyOf(p)), i, len(s.Policies)})
	}
	return list
}

// swapped lets pods exchange addresses after every state: at once, and back
// one after the other, so that for a moment two pods have the same.
func swapped(states []*cluster.Snapshot) []Step {
	var steps []Step
	for i, s := range walk(states) {
		steps = append(steps, s)
		pods := states[i].Pods
		var there Step
		for j, p := range pods {
			other := copyOf(p)
			other.IPs = pods[(j+1)%len(pods)].IPs
			there = append(there, setPod(other))
		}
		steps = append(steps, there)
		for _, p := range pods {
			steps = append(steps, Step{setPod(p)})
		}
	}
	return steps
}

// reused gives the addresses of a pod to a new one of another name, node and
// labels: before the old one is gone, after it, and with the old one finished
// but not deleted.
func reused(states []*cluster.Snapshot) []Step {
	var steps []Step
	for i, s := range walk(states) {
		steps = append(steps, s)
		pods := states[i].Pods
		if len(pods) < 2 {
			continue
		}
		old, like := pods[i%len(pods)], pods[(i+1)%len(pods)]
		heir := copyOf(like)
		heir.Key.Name, heir.UID, heir.IPs = "heir-of-an-address", "heir", old.IPs
		finished := copyOf(old)
		finished.Finished = true
		steps = append(steps,
			Step{setPod(heir)}, Step{noPod(old.Key)}, Step{noPod(heir.Key)}, // overlapping
			Step{setPod(old)}, Step{noPod(old.Key)}, Step{setPod(heir)}, // with a gap
			Step{noPod(heir.Key), setPod(old)}, Step{setPod(finished)}, Step{setPod(heir)},
			Step{noPod(heir.Key)}, Step{setPod(old)})
	}
	return steps
}

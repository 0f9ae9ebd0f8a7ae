// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"github.com/podwall/podwall/internal/cluster"
)

// byPod finds the values that may select a pod. Most of many selectors require a label that the pod
// does not have. The zero value is empty.
type byPod[T comparable] struct {
	own        map[string]*byLabel[T] // in one namespace only, by pod label
	pods       byLabel[T]             // by pod label
	namespaces byLabel[T]             // without a required pod label: by namespace label
}

// byLabel finds values by a label, or without one.
type byLabel[T comparable] struct {
	exact map[cluster.Label][]T
	broad []T
}

func (x *byPod[T]) add(s *Selection, v T) {
	exact := s.Pods.Exact()
	switch {
	case s.Namespace != "":
		if x.own == nil {
			x.own = map[string]*byLabel[T]{}
		}
		if x.own[s.Namespace] == nil {
			x.own[s.Namespace] = &byLabel[T]{}
		}
		x.own[s.Namespace].add(exact, v)
	case len(exact) > 0 || s.Namespaces == nil:
		x.pods.add(exact, v)
	default:
		x.namespaces.add(s.Namespaces.Exact(), v)
	}
}

func (x *byPod[T]) remove(s *Selection, v T) {
	exact := s.Pods.Exact()
	switch {
	case s.Namespace != "":
		own := x.own[s.Namespace]
		if own.remove(exact, v); own.empty() {
			delete(x.own, s.Namespace)
		}
	case len(exact) > 0 || s.Namespaces == nil:
		x.pods.remove(exact, v)
	default:
		x.namespaces.remove(s.Namespaces.Exact(), v)
	}
}

// elsewhere reports whether pods of every namespace may be selected.
func (x *byPod[T]) elsewhere() bool { return !x.pods.empty() || !x.namespaces.empty() }

// candidates calls f for every value that may select the pod, for some more than once, until f
// returns false. namespace is the pod's, nil while it is not known.
func (x *byPod[T]) candidates(p *cluster.Pod, namespace *cluster.Namespace, f func(T) bool) {
	if own := x.own[p.Key.Namespace]; own != nil && !own.candidates(p.Labels, f) {
		return
	}
	if x.pods.candidates(p.Labels, f) && namespace != nil {
		x.namespaces.candidates(namespace.Labels, f)
	}
}

func (x *byLabel[T]) add(exact []cluster.Label, v T) {
	if len(exact) == 0 {
		x.broad = append(x.broad, v)
		return
	}
	if x.exact == nil {
		x.exact = map[cluster.Label][]T{}
	}
	for _, l := range exact {
		x.exact[l] = append(x.exact[l], v)
	}
}

func (x *byLabel[T]) remove(exact []cluster.Label, v T) {
	if len(exact) == 0 {
		x.broad = drop(x.broad, v)
	}
	for _, l := range exact {
		if x.exact[l] = drop(x.exact[l], v); len(x.exact[l]) == 0 {
			delete(x.exact, l)
		}
	}
}

func (x *byLabel[T]) empty() bool { return len(x.exact) == 0 && len(x.broad) == 0 }

func (x *byLabel[T]) candidates(labels cluster.Labels, f func(T) bool) (more bool) {
	for _, v := range x.broad {
		if !f(v) {
			return false
		}
	}
	if len(x.exact) == 0 {
		return true
	}
	for _, l := range labels {
		for _, v := range x.exact[l] {
			if !f(v) {
				return false
			}
		}
	}
	return true
}

// drop removes one value from a list by moving the last one to its place.
func drop[T comparable](list []T, v T) []T {
	if i := slices.Index(list, v); i >= 0 {
		last := len(list) - 1
		var none T
		list[i], list[last] = list[last], none
		return list[:last]
	}
	return list
}

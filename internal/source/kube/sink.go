// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podwall/podwall/internal/cluster"
)

// sink is the store that a Reflector writes into: it converts objects of type O
// to V at once and writes them through to the cluster store. It keeps nothing.
// One goroutine uses it, the Reflector's.
type sink[O metav1.Object, V any] struct {
	store   *cluster.Store
	kind    cluster.Kind
	convert func(O) V
	set     func(*cluster.Tx, V)
	remove  func(*cluster.Tx, cluster.Key)
	replace func(*cluster.Tx, []V)
	key     func(V) cluster.Key
	listed  func()                               // called when all of a list is converted; may be nil
	trim    func([]V)                            // called after each value of a list that is collected; may be nil
	heard   func(tx *cluster.Tx, version string) // is told the resourceVersion of what is stored; may be nil
	first   *firstList[V]                        // what the present watch has streamed; nil without one
}

func (s *sink[O, V]) value(obj any) (V, error) {
	o, ok := bare(obj).(O)
	if !ok {
		var none V
		return none, errType(obj)
	}
	return s.convert(o), nil
}

// Add stores a new object.
func (s *sink[O, V]) Add(obj any) error { return s.Update(obj) }

// Update stores a changed object.
func (s *sink[O, V]) Update(obj any) error {
	v, err := s.value(obj)
	if err != nil {
		return err
	}
	s.store.Update(func(tx *cluster.Tx) {
		s.set(tx, v)
		s.hear(tx, versionOf(obj))
	})
	return nil
}

// UpdateResourceVersion notes that the server has shown all changes up to a version. The Reflector calls it
// after every event; for most bookmarks nothing else is.
func (s *sink[O, V]) UpdateResourceVersion(version string) {
	if s.heard != nil {
		s.store.Update(func(tx *cluster.Tx) { s.hear(tx, version) })
	}
}

func (s *sink[O, V]) hear(tx *cluster.Tx, version string) {
	if s.heard != nil && version != "" {
		s.heard(tx, version)
	}
}

// versionOf is the resourceVersion of an object.
func versionOf(obj any) string {
	if o, ok := bare(obj).(metav1.Object); ok {
		return o.GetResourceVersion()
	}
	return ""
}

// Delete removes an object.
func (s *sink[O, V]) Delete(obj any) error {
	o, ok := bare(obj).(O)
	if !ok {
		return errType(obj)
	}
	key := cluster.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
	s.store.Update(func(tx *cluster.Tx) {
		s.remove(tx, key)
		s.hear(tx, o.GetResourceVersion())
	})
	return nil
}

// Replace makes the list, and what was streamed before it, the whole content,
// after a first list and after one that became necessary because changes were
// missed. From the first one on the kind counts as synced.
func (s *sink[O, V]) Replace(list []any, version string) error {
	var values []V
	if s.first != nil {
		values, s.first.values = s.first.values, nil // the watch goes on and must not keep them
	}
	s.first = nil
	values = slices.Grow(values, len(list))
	for i, obj := range list {
		v, err := s.value(obj)
		if err != nil {
			return err
		}
		values = append(values, v)
		list[i] = nil // the list is ours; let the object go
	}
	if s.listed != nil {
		s.listed()
	}
	s.store.Update(func(tx *cluster.Tx) {
		s.replace(tx, values)
		s.hear(tx, version)
		tx.SetSynced(s.kind)
	})
	return nil
}

// Resync does nothing: there is no second state that could differ.
func (s *sink[O, V]) Resync() error { return nil }

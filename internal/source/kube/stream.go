// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/wake"
)

// streamed is a watch whose events a filter sees first, and may take. A
// list that a watch begins with is taken by the sink instead of the Reflector:
// that one would collect it in a table of its own, and the table takes as much as
// what is kept of the pods. The Reflector gets what comes after.
type streamed struct {
	inner  watch.Interface
	take   func(watch.Event) (taken bool)
	result chan watch.Event
	stop   wake.Signal // holds at most one signal that the receiver is gone
	ended  chan struct{}
}

func newStreamed(inner watch.Interface, take func(watch.Event) bool) *streamed {
	s := &streamed{inner: inner, take: take, result: make(chan watch.Event), stop: wake.New(),
		ended: make(chan struct{})}
	go s.run()
	return s
}

// ResultChan yields the events behind the list, first its bookmark.
func (s *streamed) ResultChan() <-chan watch.Event { return s.result }

// Stop ends the watch and waits until nothing is taken from it any more. It may
// be called again.
func (s *streamed) Stop() {
	s.stop.Set()
	s.inner.Stop()
	<-s.ended
}

func (s *streamed) run() {
	defer close(s.ended)
	defer close(s.result)
	var taken runtime.Object // the last one, while the list goes on
	for e := range s.inner.ResultChan() {
		if s.take(e) {
			taken = e.Object
			continue
		}
		taken = nil
		if !s.pass(e) {
			return
		}
	}
	if taken != nil {
		// The list broke off. A Reflector that saw nothing at all would not watch again,
		// but list, whole objects in one message.
		s.pass(watch.Event{Type: watch.Bookmark, Object: taken})
	}
}

// pass hands an event on. listened is false if the receiver is gone.
func (s *streamed) pass(e watch.Event) (listened bool) {
	select {
	case s.result <- e:
		return true
	case <-s.stop:
		return false
	}
}

// firstList collects the values of the list that a watch begins with.
type firstList[V any] struct {
	values   []V
	complete bool
}

// collector returns what takes the list at the beginning of a new watch. The next
// Replace adds it to the list that it gets.
func (s *sink[O, V]) collector() func(watch.Event) (taken bool) {
	list := &firstList[V]{} // of this watch: an earlier one may have broken off
	s.first = list
	return func(e watch.Event) bool { return s.collect(list, e) }
}

// restart forgets what a watch streamed that was given up.
func (s *sink[O, V]) restart() { s.first = nil }

// collect takes an event that belongs to the list. What it cannot understand is
// for the Reflector to complain about.
func (s *sink[O, V]) collect(list *firstList[V], e watch.Event) (taken bool) {
	o, ok := bare(e.Object).(O)
	if list.complete || !ok {
		return false
	}
	switch e.Type {
	case watch.Added:
		list.values = append(list.values, s.convert(o))
		if s.trim != nil {
			s.trim(list.values)
		}
	case watch.Modified, watch.Deleted: // while the list was on its way; rare
		k := cluster.Key{Namespace: o.GetNamespace(), Name: o.GetName()}
		list.values = slices.DeleteFunc(list.values, func(v V) bool { return s.key(v) == k })
		if e.Type == watch.Modified {
			list.values = append(list.values, s.convert(o))
		}
	case watch.Bookmark:
		list.complete = o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
		return false
	default:
		return false
	}
	return true
}

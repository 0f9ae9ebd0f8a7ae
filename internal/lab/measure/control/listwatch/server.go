// SPDX-License-Identifier: Apache-2.0

// Package listwatch is a small API server that can only be read, for clusters
// that are too large to be written into a real one: it lists, watches and gets
// namespaces, nodes, pods, network policies, Services and EndpointSlices that the
// same process puts in.
//
// What a client sees is what the real server shows it: TLS and HTTP/2, protobuf,
// resource versions, pages, lists that are streamed through a watch, bookmarks,
// and a refusal of everything that it does not know or no longer remembers. It
// has no storage, no admission, no JSON and no compression, so what is measured with
// it is the client alone. Of selectors it knows that of one object's name, and that
// with which a service proxy is spared what is another's.
package listwatch

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object is what can be put in: an API object that encodes itself.
type Object interface {
	metav1.Object
	Marshal() ([]byte, error)
}

// remembered is how many events of a kind a watch can be late by.
const remembered = 200_000

// Server holds the objects. Its methods may be called from several goroutines.
type Server struct {
	mu       sync.Mutex // guards everything, also of the kinds
	revision uint64
	kinds    map[string]*kind // by path, as in /api/v1/pods
}

// kind is one kind of objects.
type kind struct {
	apiVersion, name string
	empty            func() Object
	without          []string          // labels that no object has
	objects          map[string]stored // by namespace/name
	events           []event           // oldest first
	forgotten        uint64            // revision of the last event that was dropped
	grown            chan struct{}     // closed when an event comes
}

// stored is an object as it goes out: encoded, without envelope.
type stored struct {
	key string
	raw []byte
}

type event struct {
	revision uint64
	frame    []byte
}

// New returns a server without objects.
func New() *Server {
	s := &Server{revision: 1, kinds: map[string]*kind{}}
	for path, k := range map[string]*kind{
		"/api/v1/namespaces": {apiVersion: "v1", name: "Namespace",
			empty: func() Object { return &corev1.Namespace{} }},
		"/api/v1/nodes": {apiVersion: "v1", name: "Node", empty: func() Object { return &corev1.Node{} }},
		"/api/v1/pods":  {apiVersion: "v1", name: "Pod", empty: func() Object { return &corev1.Pod{} }},
		"/apis/networking.k8s.io/v1/networkpolicies": {apiVersion: "networking.k8s.io/v1", name: "NetworkPolicy",
			empty: func() Object { return &networkingv1.NetworkPolicy{} }},
		"/api/v1/services": {apiVersion: "v1", name: "Service", without: otherProxies(),
			empty: func() Object { return &corev1.Service{} }},
		"/apis/discovery.k8s.io/v1/endpointslices": {apiVersion: "discovery.k8s.io/v1", name: "EndpointSlice",
			without: otherProxies(), empty: func() Object { return &discoveryv1.EndpointSlice{} }},
	} {
		k.objects, k.grown = map[string]stored{}, make(chan struct{})
		s.kinds[path] = k
	}
	return s
}

// otherProxies are the labels of objects that a service proxy asks to be spared.
func otherProxies() []string {
	return []string{corev1.IsHeadlessService, "service.kubernetes.io/service-proxy-name"}
}

// kindOf returns the kind that an object belongs to.
func (s *Server) kindOf(o Object) (*kind, error) {
	path := ""
	switch o := o.(type) {
	case *corev1.Namespace:
		path = "/api/v1/namespaces"
	case *corev1.Node:
		path = "/api/v1/nodes"
	case *corev1.Pod:
		path = "/api/v1/pods"
	case *networkingv1.NetworkPolicy:
		path = "/apis/networking.k8s.io/v1/networkpolicies"
	case *corev1.Service:
		if o.Spec.ClusterIP == corev1.ClusterIPNone {
			return nil, fmt.Errorf("storing Service %s: it is headless, and the selector that is obeyed spares it",
				keyOf(o))
		}
		path = "/api/v1/services"
	case *discoveryv1.EndpointSlice:
		path = "/apis/discovery.k8s.io/v1/endpointslices"
	default:
		return nil, fmt.Errorf("storing an object: %T is not served", o)
	}
	k := s.kinds[path]
	for _, label := range k.without {
		if _, has := o.GetLabels()[label]; has {
			return nil, fmt.Errorf("storing %s %s: it has the label %s, and the only selector that is obeyed spares it",
				k.name, keyOf(o), label)
		}
	}
	return k, nil
}

func keyOf(o Object) string { return o.GetNamespace() + "/" + o.GetName() }

// Put stores a new object or a new state of one, tells the watches, and returns
// when it began to tell them. It sets the object's resource version.
func (s *Server) Put(o Object) (time.Time, error) {
	k, err := s.kindOf(o)
	if err != nil {
		return time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	what := "MODIFIED"
	if _, ok := k.objects[keyOf(o)]; !ok {
		what = "ADDED"
	}
	raw, err := s.next(o)
	if err != nil {
		return time.Time{}, err
	}
	k.objects[keyOf(o)] = stored{keyOf(o), raw}
	return s.tell(k, what, raw)
}

// Delete removes an object and is otherwise like Put. It is an error if there is
// none.
func (s *Server) Delete(o Object) (time.Time, error) {
	k, err := s.kindOf(o)
	if err != nil {
		return time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := k.objects[keyOf(o)]; !ok {
		return time.Time{}, fmt.Errorf("deleting %s %s: there is none", k.name, keyOf(o))
	}
	raw, err := s.next(o)
	if err != nil {
		return time.Time{}, err
	}
	delete(k.objects, keyOf(o))
	return s.tell(k, "DELETED", raw)
}

// next gives the object the next revision and encodes it; the server is locked.
func (s *Server) next(o Object) ([]byte, error) {
	s.revision++
	o.SetResourceVersion(strconv.FormatUint(s.revision, 10))
	raw, err := o.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", keyOf(o), err)
	}
	return raw, nil
}

// tell appends an event of the newest revision; the server is locked.
func (s *Server) tell(k *kind, what string, raw []byte) (time.Time, error) {
	frame, err := k.frame(what, raw)
	if err != nil {
		return time.Time{}, err
	}
	k.events = append(k.events, event{s.revision, frame})
	if n := len(k.events) - remembered; n > 0 {
		k.forgotten = k.events[n-1].revision
		k.events = slices.Clone(k.events[n:])
	}
	now := time.Now()
	close(k.grown)
	k.grown = make(chan struct{})
	return now, nil
}

// Forget drops all events that are remembered, as the real server does after
// some minutes: a watch that wants one of them is refused.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kinds {
		k.events, k.forgotten = nil, s.revision
	}
}

// all returns the objects of a kind, sorted, and their revision.
func (s *Server) all(k *kind) ([]stored, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Collect(maps.Values(k.objects))
	slices.SortFunc(list, func(a, b stored) int { return cmp.Compare(a.key, b.key) })
	return list, s.revision
}

func (s *Server) one(k *kind, key string) (stored, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := k.objects[key]
	return o, ok
}

// after returns the events that are newer than a revision, what closes when there
// are more, and the newest revision. It is not ok if some were forgotten.
func (s *Server) after(k *kind, revision uint64) (frames []byte, newest uint64, more <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision < k.forgotten {
		return nil, 0, nil, false
	}
	from, _ := slices.BinarySearchFunc(k.events, revision+1,
		func(e event, r uint64) int { return cmp.Compare(e.revision, r) })
	for _, e := range k.events[from:] {
		frames = append(frames, e.frame...)
	}
	return frames, s.revision, k.grown, true
}

// frame is one event on the wire: its length in four bytes, then the event.
func (k *kind) frame(what string, raw []byte) ([]byte, error) {
	object, err := envelope(k.apiVersion, k.name, raw)
	if err != nil {
		return nil, err
	}
	e := metav1.WatchEvent{Type: what}
	e.Object.Raw = object
	body, err := e.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encoding an event: %w", err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...), nil
}

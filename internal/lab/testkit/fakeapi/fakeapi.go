// SPDX-License-Identifier: Apache-2.0

// Package fakeapi is as much of an API server as kube-proxy asks: lists and watches in JSON. It keeps the
// objects that a test sets, and evaluates no selectors.
package fakeapi

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Server is the API server. Whoever sets objects leaves out those that kube-proxy does not select.
type Server struct {
	mu       sync.Mutex
	revision int
	kinds    map[string]*apiKind // by path
}

// apiKind are the objects of one kind, and what happened to them.
type apiKind struct {
	version, kind string
	objects       map[string]map[string]any
	events        []apiEvent
	more          chan struct{} // closed at the next event
}

type apiEvent struct {
	Type     string         `json:"type"`
	Object   map[string]any `json:"object"`
	revision int
}

// The kinds, by path.
const (
	PathServices = "/api/v1/services"
	PathSlices   = "/apis/discovery.k8s.io/v1/endpointslices"
	PathNodes    = "/api/v1/nodes"
	PathRanges   = "/apis/networking.k8s.io/v1/servicecidrs"
)

// New returns a server without objects.
func New() *Server {
	s := &Server{revision: 1, kinds: map[string]*apiKind{}}
	for path, of := range map[string][2]string{PathServices: {"v1", "Service"},
		PathSlices: {"discovery.k8s.io/v1", "EndpointSlice"}, PathNodes: {"v1", "Node"},
		PathRanges: {"networking.k8s.io/v1", "ServiceCIDR"}} {
		s.kinds[path] = &apiKind{version: of[0], kind: of[1], objects: map[string]map[string]any{},
			more: make(chan struct{})}
	}
	return s
}

// Set makes the objects, by namespace/name, the only ones of a kind. They come and change in the order of
// their names, and the others go first.
func (s *Server) Set(path string, objects map[string]any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[path]
	for _, name := range slices.Sorted(maps.Keys(k.objects)) {
		if objects[name] == nil {
			s.event(k, "DELETED", name, k.objects[name])
			delete(k.objects, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		text, err := json.Marshal(objects[name])
		if err != nil {
			return err
		}
		var o map[string]any
		if err := json.Unmarshal(text, &o); err != nil {
			return err
		}
		what, old := "ADDED", k.objects[name]
		switch {
		case old != nil && old["addressType"] != o["addressType"]: // it cannot change
			s.event(k, "DELETED", name, old)
		case old != nil:
			what = "MODIFIED"
		}
		k.objects[name] = o
		s.event(k, what, name, o)
	}
	close(k.more)
	k.more = make(chan struct{})
	return nil
}

func (s *Server) event(k *apiKind, what, name string, o map[string]any) {
	s.revision++
	o = maps.Clone(o)
	o["apiVersion"], o["kind"] = k.version, k.kind
	meta, _ := o["metadata"].(map[string]any)
	meta = maps.Clone(meta)
	meta["resourceVersion"], meta["uid"] = strconv.Itoa(s.revision), name
	o["metadata"] = meta
	if what != "DELETED" {
		k.objects[name] = o
	}
	k.events = append(k.events, apiEvent{what, o, s.revision})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	path, name := r.URL.Path, ""
	k := s.kinds[path]
	if i := strings.LastIndexByte(path, '/'); k == nil && s.kinds[path[:i]] != nil {
		k, name = s.kinds[path[:i]], path[i+1:]
	}
	switch {
	case r.Method == http.MethodPost: // Events
		w.WriteHeader(http.StatusCreated)
		_, _ = io.Copy(w, r.Body)
	case k == nil:
		w.WriteHeader(http.StatusNotFound)
	case name != "":
		s.mu.Lock()
		o := k.objects["/"+name]
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(o)
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, k)
	default:
		items, revision := s.list(k)
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": k.version, "kind": k.kind + "List",
			"metadata": map[string]any{"resourceVersion": strconv.Itoa(revision)}, "items": items})
	}
}

func (s *Server) list(k *apiKind) (items []map[string]any, revision int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items = []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(k.objects)) {
		items = append(items, k.objects[name])
	}
	return items, s.revision
}

// watch sends what happened after the revision of the request, or everything and then what happens.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, k *apiKind) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	out, flush := json.NewEncoder(w), http.NewResponseController(w)
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		items, revision := s.list(k)
		from = revision
		for _, o := range items {
			_ = out.Encode(apiEvent{Type: "ADDED", Object: o})
		}
		_ = out.Encode(apiEvent{Type: "BOOKMARK", Object: map[string]any{"apiVersion": k.version, "kind": k.kind,
			"metadata": map[string]any{"resourceVersion": fmt.Sprint(revision),
				"annotations": map[string]any{"k8s.io/initial-events-end": "true"}}}})
	}
	for {
		s.mu.Lock()
		events, more := slices.Clone(k.events), k.more
		s.mu.Unlock()
		for _, e := range events {
			if e.revision <= from {
				continue
			}
			if from = e.revision; out.Encode(e) != nil {
				return
			}
		}
		_ = flush.Flush()
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

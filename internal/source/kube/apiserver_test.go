// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
)

// apiServer is a small API server: lists, streamed lists, watches from a
// version on, and the failures that a test asks for.
type apiServer struct {
	*httptest.Server
	cfg *rest.Config

	mu       sync.Mutex // guards what follows
	version  int
	objects  map[string]map[string]metav1.Object // resource, namespace/name
	log      []event
	oldest   int             // changes up to this version are forgotten
	changed  chan struct{}   // closed at the next change
	cut      chan struct{}   // closed when open watches end
	watches  []chan struct{} // each closed when its watch has ended
	refuse   map[string]int
	noStream bool
	token    string         // that requests must have, if it is not empty
	lists    map[string]int // how often a resource was listed, in either way
	headers  []http.Header
	wants    map[string]string // the selector by which a resource was asked for last
}

type event struct {
	version  int
	resource string
	kind     string
	object   []byte
	// labels are those of the object, before and after.
	before, after labels.Set
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{
		version: 1, objects: map[string]map[string]metav1.Object{}, changed: make(chan struct{}), cut: make(chan struct{}),
		refuse: map[string]int{}, lists: map[string]int{},
	}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	s.cfg = &rest.Config{Host: s.URL}
	t.Cleanup(s.Close)
	return s
}

// update runs a change and wakes the watches.
func (s *apiServer) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *apiServer) put(resource string, objects ...metav1.Object) {
	s.update(func() {
		for _, o := range objects {
			all := s.objects[resource]
			if all == nil {
				all = map[string]metav1.Object{}
				s.objects[resource] = all
			}
			kind, before := "ADDED", labels.Set(nil)
			if old, there := all[keyOf(o)]; there {
				kind, before = "MODIFIED", old.GetLabels()
			}
			s.version++
			o.SetResourceVersion(strconv.Itoa(s.version))
			all[keyOf(o)] = o
			s.record(resource, kind, o, before)
		}
	})
}

func (s *apiServer) remove(resource string, o metav1.Object) {
	s.update(func() {
		delete(s.objects[resource], keyOf(o))
		s.version++
		o.SetResourceVersion(strconv.Itoa(s.version))
		s.record(resource, "DELETED", o, o.GetLabels())
	})
}

func (s *apiServer) record(resource, kind string, o metav1.Object, before labels.Set) {
	data, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	s.log = append(s.log, event{s.version, resource, kind, data, before, o.GetLabels()})
}

// kindFor is what a watch with a selector sees of an event; "" for nothing.
func (e event) kindFor(selector labels.Selector) string {
	was, is := selector.Matches(e.before), selector.Matches(e.after)
	switch {
	case e.kind == "MODIFIED" && is && !was:
		return "ADDED"
	case e.kind == "MODIFIED" && was && !is:
		return "DELETED"
	case !is:
		return ""
	}
	return e.kind
}

// hangUp ends all watches and waits until they have ended.
func (s *apiServer) hangUp() {
	s.mu.Lock()
	open := s.watches
	s.watches = nil
	close(s.cut)
	s.cut = make(chan struct{})
	s.mu.Unlock()
	for _, ended := range open {
		<-ended
	}
}

// forget makes every watch start with a list again.
func (s *apiServer) forget() {
	s.update(func() {
		s.version++
		s.oldest = s.version
	})
}

func (s *apiServer) setRefuse(resource string, status int) {
	s.update(func() { s.refuse[resource] = status })
}

func (s *apiServer) listed(resource string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists[resource]
}

func keyOf(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	resource, q := path.Base(r.URL.Path), r.URL.Query()
	s.mu.Lock()
	s.headers = append(s.headers, r.Header)
	watched := q.Get("watch") == "true" || q.Get("watch") == "1"
	status, stream := s.refuse[resource], q.Get("sendInitialEvents") == "true"
	if watched && status == 0 {
		status = s.refuse["watch "+resource]
	}
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		status = http.StatusUnauthorized
	}
	selector, err := labels.Parse(q.Get("labelSelector"))
	if err != nil {
		status = http.StatusBadRequest
	}
	if s.wants == nil {
		s.wants = map[string]string{}
	}
	s.wants[resource] = q.Get("labelSelector")
	noStream, one := s.noStream, s.objects[path.Base(path.Dir(r.URL.Path))]["/"+resource]
	s.mu.Unlock()
	switch {
	case status != 0:
		reject(w, status)
	case kindOf[resource][0] == "":
		s.get(w, one)
	case stream && noStream:
		reject(w, http.StatusUnprocessableEntity)
	case watched:
		from, _ := strconv.Atoi(q.Get("resourceVersion"))
		s.watch(w, r, resource, from, stream, selector)
	case q.Get("limit") == "1": // asks for the revision only
		s.list(w, resource, selector)
	default:
		s.mu.Lock()
		s.lists[resource]++
		s.mu.Unlock()
		s.list(w, resource, selector)
	}
}

// get answers a request for one object.
func (s *apiServer) get(w http.ResponseWriter, o metav1.Object) {
	if o == nil {
		reject(w, http.StatusNotFound)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o) // the client went away
}

// reject answers as API servers do, with a Status.
func reject(w http.ResponseWriter, status int) {
	reasons := map[int]metav1.StatusReason{
		http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusUnauthorized: metav1.StatusReasonUnauthorized,
		http.StatusGone: metav1.StatusReasonExpired, http.StatusNotFound: metav1.StatusReasonNotFound, http.StatusUnprocessableEntity: metav1.StatusReasonInvalid,
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(status), Reason: reasons[status],
	})
}

var kindOf = map[string][2]string{
	"namespaces": {"v1", "Namespace"}, "pods": {"v1", "Pod"}, "nodes": {"v1", "Node"},
	"networkpolicies": {"networking.k8s.io/v1", "NetworkPolicy"}, "services": {"v1", "Service"},
	"endpointslices": {"discovery.k8s.io/v1", "EndpointSlice"},
}

func (s *apiServer) list(w http.ResponseWriter, resource string, selector labels.Selector) {
	s.mu.Lock()
	items := make([]metav1.Object, 0, len(s.objects[resource]))
	for _, o := range s.objects[resource] {
		if selector.Matches(labels.Set(o.GetLabels())) {
			items = append(items, o)
		}
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": kindOf[resource][0], "kind": kindOf[resource][1] + "List",
		"metadata": map[string]string{"resourceVersion": strconv.Itoa(s.version)}, "items": items,
	})
	s.mu.Unlock()
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, resource string, from int, stream bool,
	selector labels.Selector) {
	w.Header().Set("Content-Type", "application/json")
	s.mu.Lock()
	cut, ended := s.cut, make(chan struct{})
	s.watches = append(s.watches, ended)
	defer close(ended)
	if stream {
		s.lists[resource]++
		from = s.initial(w, resource, selector)
	} else if from < s.oldest {
		s.mu.Unlock()
		reject(w, http.StatusGone)
		return
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		for _, e := range s.log {
			if kind := e.kindFor(selector); e.version > from && e.resource == resource && kind != "" {
				s.send(w, kind, resource, e.object)
			}
		}
		from = s.version
		changed := s.changed
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-cut:
			return
		case <-changed:
		}
	}
}

// initial streams the present objects and the bookmark behind them.
func (s *apiServer) initial(w http.ResponseWriter, resource string, selector labels.Selector) (version int) {
	for _, o := range s.objects[resource] {
		if !selector.Matches(labels.Set(o.GetLabels())) {
			continue
		}
		data, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		s.send(w, "ADDED", resource, data)
	}
	bookmark := fmt.Sprintf(`{"metadata":{"resourceVersion":"%d","annotations":{"%s":"true"}}}`,
		s.version, metav1.InitialEventsAnnotationKey)
	s.send(w, "BOOKMARK", resource, []byte(bookmark))
	return s.version
}

func (s *apiServer) send(w http.ResponseWriter, kind, resource string, object []byte) {
	k := kindOf[resource]
	fmt.Fprintf(w, `{"type":"%s","object":{"apiVersion":"%s","kind":"%s",%s}`+"\n", kind, k[0], k[1], object[1:])
}

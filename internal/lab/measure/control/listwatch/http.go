// SPDX-License-Identifier: Apache-2.0

package listwatch

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// known are the parameters of a request that have a meaning here. Another one,
// such as a selector, is refused: to ignore it would be a wrong answer.
var known = [...]string{"allowWatchBookmarks", "continue", "limit", "resourceVersion", "resourceVersionMatch",
	"sendInitialEvents", "timeoutSeconds", "timeout", "watch"}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, name := r.URL.Path, ""
	k := s.kinds[path]
	if i := strings.LastIndexByte(path, '/'); k == nil && s.kinds[path[:max(i, 0)]] != nil {
		k, name = s.kinds[path[:i]], path[i+1:]
	}
	q := r.URL.Query()
	listed, key := s.named(path, q)
	switch {
	case k == nil && listed == nil:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	case r.Method != http.MethodGet:
		refuse(w, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "the server can only be read")
	case !strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf):
		refuse(w, http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, "only protobuf is spoken")
	case listed != nil:
		s.namedList(w, listed, key)
	case s.unknown(k, q) != "":
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest,
			"parameter "+s.unknown(k, q)+" has no meaning here")
	case name != "":
		s.get(w, k, name)
	case q.Get("watch") == "true" || q.Get("watch") == "1":
		s.watch(w, r, k, q)
	default:
		s.list(w, k, q)
	}
}

// named returns the kind and the key of a request for the list of one object of a namespace, by its name.
// Nothing else of a namespace is served.
func (s *Server) named(path string, q url.Values) (*kind, string) {
	group, rest, _ := strings.Cut(path, "/namespaces/")
	namespace, plural, _ := strings.Cut(rest, "/")
	name, ok := strings.CutPrefix(q.Get("fieldSelector"), "metadata.name=")
	if !ok || len(q) > 1 {
		return nil, ""
	}
	return s.kinds[group+"/"+plural], namespace + "/" + name
}

// namedList answers with the object, or with an empty list.
func (s *Server) namedList(w http.ResponseWriter, k *kind, key string) {
	var objects []stored
	if o, ok := s.one(k, key); ok {
		objects = append(objects, o)
	}
	answerList(w, k, metav1.ListMeta{}, objects)
}

// refuse answers with a Status, as errors of the API are.
func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{ // who went away needs no answer
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Reason: reason, Message: message, Code: int32(code),
	})
}

// get answers with an object that belongs to no namespace.
func (s *Server) get(w http.ResponseWriter, k *kind, name string) {
	o, ok := s.one(k, "/"+name)
	if !ok {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, k.name+" "+name+" not found")
		return
	}
	answer(w, k.apiVersion, k.name, o.raw)
}

// page is where a list goes on. The later pages show the newest state under the
// revision of the first: the events since then lead to the same end.
type page struct {
	Revision uint64 `json:"rv"`
	After    string `json:"after"`
}

func (s *Server) list(w http.ResponseWriter, k *kind, q url.Values) {
	objects, revision := s.all(k)
	if token := q.Get("continue"); token != "" {
		var p page
		text, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || json.Unmarshal(text, &p) != nil {
			refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, "continue key is not valid")
			return
		}
		revision = p.Revision
		from, found := slices.BinarySearchFunc(objects, p.After,
			func(o stored, key string) int { return strings.Compare(o.key, key) })
		if found {
			from++
		}
		objects = objects[from:]
	}
	meta := metav1.ListMeta{ResourceVersion: strconv.FormatUint(revision, 10)}
	if limit, err := strconv.Atoi(q.Get("limit")); err == nil && limit > 0 && limit < len(objects) {
		rest := int64(len(objects) - limit)
		objects = objects[:limit]
		text, err := json.Marshal(page{revision, objects[limit-1].key})
		if err != nil {
			refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
			return
		}
		meta.Continue, meta.RemainingItemCount = base64.RawURLEncoding.EncodeToString(text), &rest
	}
	answerList(w, k, meta, objects)
}

func answerList(w http.ResponseWriter, k *kind, meta metav1.ListMeta, objects []stored) {
	head, err := meta.Marshal()
	if err != nil {
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
		return
	}
	const metaField, itemField = 1<<3 | 2, 2<<3 | 2 // of every list type
	raw := field(nil, metaField, head)
	for _, o := range objects {
		raw = field(raw, itemField, o.raw)
	}
	answer(w, k.apiVersion, k.name+"List", raw)
}

// field appends a protobuf field of bytes.
func field(to []byte, tag byte, value []byte) []byte {
	to = binary.AppendUvarint(append(to, tag), uint64(len(value)))
	return append(to, value...)
}

// envelope puts what says its type around an encoded object.
func envelope(apiVersion, kind string, raw []byte) ([]byte, error) {
	u := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: raw}
	body, err := u.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encoding an object's envelope: %w", err)
	}
	return append([]byte("k8s\x00"), body...), nil
}

func answer(w http.ResponseWriter, apiVersion, kind string, raw []byte) {
	body, err := envelope(apiVersion, kind, raw)
	if err != nil {
		refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError, err.Error())
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	_, _ = w.Write(body) // who went away needs no answer
}

// beat is the time between two bookmarks, as of the real server.
const beat = time.Minute

// watch streams events until the client goes or its time is over.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, k *kind, q url.Values) {
	revision, initial, refusal := s.start(k, q)
	if refusal != "" {
		refuse(w, http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, refusal)
		return
	}
	if _, _, _, ok := s.after(k, revision); !ok {
		refuse(w, http.StatusGone, metav1.StatusReasonExpired, fmt.Sprintf("too old resource version: %d", revision))
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	out := &stream{w: w, k: k, flush: http.NewResponseController(w)}
	if q.Get("sendInitialEvents") == "true" {
		for _, o := range initial {
			out.event("ADDED", o.raw)
		}
		out.bookmark(revision, map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	out.flushed()
	seconds, err := strconv.Atoi(q.Get("timeoutSeconds"))
	if err != nil || seconds <= 0 {
		seconds = 3600
	}
	end := time.NewTimer(time.Duration(seconds) * time.Second)
	defer end.Stop()
	bookmarks := time.NewTicker(beat)
	defer bookmarks.Stop()
	for out.err == nil {
		frames, newest, more, ok := s.after(k, revision)
		if !ok {
			return // too slow; the next watch is refused
		}
		revision = newest
		if len(frames) > 0 {
			out.write(frames)
			out.flushed()
		}
		select {
		case <-more:
		case <-bookmarks.C:
			if q.Get("allowWatchBookmarks") == "true" {
				out.bookmark(revision, nil)
				out.flushed()
			}
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// start says from which revision a watch begins, with which objects, or why it
// does not.
func (s *Server) start(k *kind, q url.Values) (revision uint64, initial []stored, refusal string) {
	asked := q.Get("resourceVersion")
	switch {
	case q.Get("sendInitialEvents") == "true" &&
		q.Get("resourceVersionMatch") != string(metav1.ResourceVersionMatchNotOlderThan):
		return 0, nil, "sendInitialEvents needs resourceVersionMatch=NotOlderThan"
	case q.Get("sendInitialEvents") == "true" && q.Get("allowWatchBookmarks") != "true":
		return 0, nil, "sendInitialEvents needs allowWatchBookmarks"
	case q.Get("sendInitialEvents") == "true":
		initial, revision = s.all(k)
		return revision, initial, ""
	case q.Get("resourceVersionMatch") != "":
		return 0, nil, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
	}
	revision, err := strconv.ParseUint(asked, 10, 64)
	if err != nil || revision == 0 {
		return 0, nil, "a watch from an unknown state is not served: give a resourceVersion or sendInitialEvents"
	}
	return revision, nil, ""
}

// stream is the answer to a watch; the first error ends it.
type stream struct {
	w     http.ResponseWriter
	k     *kind
	flush *http.ResponseController
	err   error
}

func (s *stream) write(b []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
}

func (s *stream) flushed() {
	if s.err == nil {
		s.err = s.flush.Flush()
	}
}

func (s *stream) event(what string, raw []byte) {
	frame, err := s.k.frame(what, raw)
	if s.err == nil {
		s.err = err
	}
	s.write(frame)
}

func (s *stream) bookmark(revision uint64, annotations map[string]string) {
	o := s.k.empty()
	o.SetResourceVersion(strconv.FormatUint(revision, 10))
	o.SetAnnotations(annotations)
	raw, err := o.Marshal()
	if s.err == nil {
		s.err = err
	}
	s.event("BOOKMARK", raw)
}

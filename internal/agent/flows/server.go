// SPDX-License-Identifier: Apache-2.0

//go:build linux

package flows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/netpol/denied"
)

// Socket is where the server listens: an abstract socket, one in each network namespace, which
// vanishes with the process.
const Socket = "@podwall-flows"

const (
	// maxClients bounds the questions at the same time.
	maxClients = 16
	// headerTime is how long a client may take to ask, writeTime how long to take one line.
	headerTime = 5 * time.Second
	writeTime  = 10 * time.Second
)

// Server answers root about the records of a node.
type Server struct {
	// Recorder is nil if the agent records nothing.
	Recorder *Recorder
	Node     string
	// Denied returns how many packets policies have denied since the agent started.
	Denied func() (uint64, error)

	listener net.Listener
	slots    chan struct{}
}

// Listen takes the socket. It is an error that another process has it.
func (s *Server) Listen(ctx context.Context) error {
	l, usurper, err := datapath.Lock(ctx, Socket)
	if err == nil && usurper != "" {
		err = fmt.Errorf("%s has it", usurper)
	}
	if err != nil {
		return fmt.Errorf("taking the abstract socket %s: %w", Socket, err)
	}
	s.listener, s.slots = l, make(chan struct{}, maxClients)
	return nil
}

// Run answers until ctx ends; every answer ends with it. Listen must have succeeded before.
func (s *Server) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /flows", s.serve)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: headerTime, IdleTimeout: headerTime,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			ours, _, err := datapath.Peer(c)
			return context.WithValue(ctx, rootKey{}, ours && err == nil)
		}}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // answers end with ctx
		defer cancel()
		_ = errors.Join(h.Shutdown(last), h.Close()) // Serve reports it
	})
	err := h.Serve(s.listener)
	if !stop() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answering at %s: %w", Socket, err)
	}
	return nil
}

// rootKey is the key of whether the client is root's.
type rootKey struct{}

func (s *Server) serve(w http.ResponseWriter, q *http.Request) {
	if root, _ := q.Context().Value(rootKey{}).(bool); !root {
		http.Error(w, "denied flows are told to root only", http.StatusForbidden)
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		http.Error(w, "too many ask at the same time, try again", http.StatusServiceUnavailable)
		return
	}
	since, err := time.Parse(time.RFC3339Nano, q.FormValue("since"))
	if err != nil {
		http.Error(w, "since: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &writer{json: json.NewEncoder(w), control: http.NewResponseController(w)}
	s.answer(q.Context(), out, since, q.FormValue("follow") == "true")
}

// answer writes the records, the summary, and, to who follows, what comes then.
func (s *Server) answer(ctx context.Context, out *writer, since time.Time, follow bool) {
	if s.Recorder == nil {
		out.line(denied.Line{Summary: &denied.Summary{Node: s.Node,
			Why: "the agent runs without --denied-flows-group"}})
		return
	}
	list, summary, f := s.Recorder.since(since, follow)
	if f != nil {
		defer s.Recorder.leave(f)
	}
	for i := range list {
		out.line(denied.Line{Flow: &list[i]})
	}
	if all, err := s.Denied(); err == nil && all > summary.Recorded {
		summary.Suppressed = all - summary.Recorded
	}
	out.line(denied.Line{Summary: &summary})
	for f != nil && out.err == nil {
		select {
		case <-ctx.Done():
			return
		case r := <-f.records:
			out.line(denied.Line{Flow: &r})
			if n := s.Recorder.missed(f); n > 0 {
				out.line(denied.Line{Summary: &denied.Summary{Node: s.Node, Recording: true, Missed: n}})
			}
		}
	}
}

// writer writes lines until one fails: the client went away, or does not read.
type writer struct {
	json    *json.Encoder
	control *http.ResponseController
	err     error
}

func (w *writer) line(l denied.Line) {
	if w.err == nil {
		w.err = errors.Join(w.control.SetWriteDeadline(time.Now().Add(writeTime)), w.json.Encode(l), w.control.Flush())
	}
}

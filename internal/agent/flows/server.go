// SPDX-License-Identifier: Apache-2.0

//go:build linux

package flows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	// maxQuestions and maxFollowers bound who is answered at the same time: who follows for ever takes no
	// place of the others.
	maxQuestions, maxFollowers = 16, 16
	// maxHeader is the largest question that is read, in bytes.
	maxHeader = 4 << 10
	// headerTime is how long a client may take to ask, writeTime how long to take one line.
	headerTime = 5 * time.Second
	writeTime  = 10 * time.Second
	// pageTime is how long a client may take to read a page.
	pageTime = time.Minute
)

// Server answers root about the records of a node.
type Server struct {
	// Recorder is nil if the agent records nothing.
	Recorder *Recorder
	Node     string
	// Pages are further pages for root, by path: what the agent knows of itself. May be nil.
	Pages map[string]http.Handler
	// Denied returns how many packets policies have denied since the agent started.
	Denied func() (uint64, error)

	listener             net.Listener
	questions, followers chan struct{}
	left                 leftOut
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
	s.listener = rootOnly{l}
	s.questions, s.followers = make(chan struct{}, maxQuestions), make(chan struct{}, maxFollowers)
	return nil
}

// rootOnly accepts connections of root. Others are told no at once, and nothing of theirs is read or kept:
// any user of the node can open as many as he likes.
type rootOnly struct{ net.Listener }

// refusal is the answer to other users.
const refusal = "HTTP/1.0 403 Forbidden\r\nContent-Type: text/plain\r\n\r\ndenied flows are told to root only\n"

// Accept implements net.Listener.
func (l rootOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if ours, _, err := datapath.Peer(c); err == nil && ours {
			return c, nil
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // it fits into the socket
		_, _ = io.WriteString(c, refusal)                   // who does not read it knows nothing either
		_ = c.Close()
	}
}

// Run answers until ctx ends; every answer ends with it. Listen must have succeeded before.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /flows", s.serve)
	for path, page := range s.Pages {
		mux.Handle("GET "+path, s.bounded(page))
	}
	h := &http.Server{Handler: mux,
		ReadHeaderTimeout: headerTime, ReadTimeout: headerTime, IdleTimeout: headerTime,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx }}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second) // answers end with ctx
		defer cancel()
		_ = errors.Join(h.Shutdown(last), h.Close()) // Serve reports it
	})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(ctx, countEach)
	}()
	err := h.Serve(s.listener) // not before ctx ends, unless the socket fails
	cancel()
	<-watched
	if !stop() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answering at %s: %w", Socket, err)
	}
	return nil
}

// bounded serves a page to as many as may ask at the same time.
func (s *Server) bounded(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		leave, ok := enter(w, s.questions)
		if !ok {
			return
		}
		defer leave()
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pageTime)) // a Unix socket has it
		page.ServeHTTP(w, q)
	})
}

// enter takes a place, or says that there is none.
func enter(w http.ResponseWriter, places chan struct{}) (leave func(), ok bool) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, true
	default:
		http.Error(w, "too many ask at the same time, try again", http.StatusServiceUnavailable)
		return nil, false
	}
}

func (s *Server) serve(w http.ResponseWriter, q *http.Request) {
	follow, places := q.FormValue("follow") == "true", s.questions
	if follow {
		places = s.followers
	}
	leave, ok := enter(w, places)
	if !ok {
		return
	}
	defer leave()
	since, err := time.Parse(time.RFC3339Nano, q.FormValue("since"))
	if err != nil {
		http.Error(w, "since: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &writer{json: json.NewEncoder(w), control: http.NewResponseController(w)}
	s.answer(q.Context(), out, since, follow)
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
	if err := s.count(ctx, &summary); err != nil { // then there may be any number
		summary.Recording, summary.Why = false, err.Error()
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

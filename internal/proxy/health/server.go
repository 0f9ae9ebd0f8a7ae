// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/wake"
	"github.com/podwall/podwall/internal/web"
)

// retryAfter is how long a port that could not be opened is left alone.
const retryAfter = 5 * time.Second

// Options say how a Server works.
type Options struct {
	// Address is where /healthz and /livez are, as host:port; empty for nowhere.
	Address string
	// Log receives which ports are open; nil means nowhere.
	Log *slog.Logger
	// Changed is called when Problems has changed, by the goroutine of Run; nil is allowed.
	Changed func()
	// Retry is the time between two tries to open a port; 0 means five seconds.
	Retry time.Duration
}

// Problem is a port that cannot be opened.
type Problem struct{ Subject, Text, Cure string }

// Server keeps the ports open that the last Set asked for. Set and Problems may be called by any goroutine,
// also before Run.
type Server struct {
	options Options
	wake    wake.Signal

	mu       sync.Mutex // guards what follows
	proxy    Proxy
	services map[uint16]service.Health
	problems map[string]Problem // by address
}

// New returns a server that listens nowhere before Run.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Retry == 0 {
		o.Retry = retryAfter
	}
	return &Server{options: o, wake: wake.New()}
}

// SetProxy changes what the pages say of the proxy and the node.
func (s *Server) SetProxy(p Proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proxy = p
}

// SetServices changes the health-check node ports, one for each port. It waits for no port.
func (s *Server) SetServices(list []service.Health) {
	wanted := make(map[uint16]service.Health, len(list))
	for _, h := range list {
		wanted[h.Port] = h
	}
	s.mu.Lock()
	s.services = wanted
	s.mu.Unlock()
	s.wake.Set()
}

// Problems returns the ports that cannot be opened, sorted by subject.
func (s *Server) Problems() []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Problem
	for _, at := range slices.Sorted(maps.Keys(s.problems)) {
		list = append(list, s.problems[at])
	}
	return list
}

// Run keeps the ports open until ctx ends, and closes them. Ports that are taken are tried again.
func (s *Server) Run(ctx context.Context) {
	open := map[string]*port{}
	var running sync.WaitGroup
	defer running.Wait()
	defer func() {
		for _, p := range open {
			p.close()
		}
	}()
	again := time.NewTimer(s.options.Retry)
	defer again.Stop()
	for ctx.Err() == nil {
		if s.reconcile(ctx, open, &running) {
			again.Reset(s.options.Retry)
		} else {
			again.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-again.C:
		}
	}
}

// wanted returns the ports that are to be open, by address.
func (s *Server) wanted() map[string]http.Handler {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := map[string]http.Handler{}
	for number := range s.services {
		list[net.JoinHostPort("", strconv.Itoa(int(number)))] = s.serviceHandler(number)
	}
	if s.options.Address != "" {
		list[s.options.Address] = s.proxyHandler()
	}
	return list
}

// reconcile closes and opens ports. It reports whether some could not be opened.
func (s *Server) reconcile(ctx context.Context, open map[string]*port, running *sync.WaitGroup) (again bool) {
	wanted, failed := s.wanted(), map[string]Problem{}
	for at, p := range open {
		if _, still := wanted[at]; !still || p.ended() {
			p.close()
			delete(open, at)
			s.options.Log.Info("health port closed", "address", at)
		}
	}
	for _, at := range slices.Sorted(maps.Keys(wanted)) {
		if open[at] != nil {
			continue
		}
		p, err := s.open(ctx, at, wanted[at], running)
		if err != nil {
			failed[at] = s.problem(at, err)
			continue
		}
		open[at] = p
		s.options.Log.Info("health port opened", "address", at)
	}
	s.mu.Lock()
	changed := !maps.Equal(s.problems, failed)
	s.problems = failed
	s.mu.Unlock()
	if changed && s.options.Changed != nil {
		s.options.Changed()
	}
	return len(failed) > 0
}

// problem says what is wrong with a port.
func (s *Server) problem(at string, err error) Problem {
	cure := "see the error"
	if errors.Is(err, syscall.EADDRINUSE) {
		cure = "stop the program that has the port; it is tried again every " + s.options.Retry.String()
	}
	if at == s.options.Address {
		return Problem{"health port " + at, fmt.Sprintf("load balancers cannot ask whether this node serves: %v", err),
			cure}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, text, _ := net.SplitHostPort(at)
	number, _ := strconv.ParseUint(text, 10, 16) // ours
	return Problem{"health-check node port " + text, fmt.Sprintf("load balancers send nothing to this node for "+
		"Service %s: %v", s.services[uint16(number)].Service, err), cure}
}

// port is an open port.
type port struct {
	server *http.Server
	done   chan struct{} // closed when nobody is answered any more
}

func (s *Server) open(ctx context.Context, at string, handler http.Handler,
	running *sync.WaitGroup) (*port, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", at) // of both families, where the node has them
	if err != nil {
		return nil, err
	}
	p := &port{server: web.New(handler, s.options.Log), done: make(chan struct{})}
	running.Go(func() {
		err := p.server.Serve(listener)
		close(p.done)
		if !errors.Is(err, http.ErrServerClosed) {
			s.options.Log.Warn("health port failed", "address", at, "error", err)
			s.wake.Set()
		}
	})
	return p, nil
}

func (p *port) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// close closes the port and its connections: the answers are written at once, so none is cut short that
// matters.
func (p *port) close() {
	_ = p.server.Close() // it is going away in any case
	<-p.done
}

// serviceHandler answers at a health-check node port, on every path.
func (s *Server) serviceHandler(number uint16) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		h, wanted := s.services[number]
		p := s.proxy
		s.mu.Unlock()
		if !wanted {
			w.WriteHeader(http.StatusServiceUnavailable) // the port is being closed
			return
		}
		write(w, ForService(h, p, time.Now()))
	})
}

func (s *Server) proxyHandler() http.Handler {
	page := func(f func(Proxy, time.Time) Answer) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			s.mu.Lock()
			p := s.proxy
			s.mu.Unlock()
			write(w, f(p, time.Now()))
		}
	}
	mux := http.NewServeMux()
	mux.Handle("/healthz", page(Healthz))
	mux.Handle("/livez", page(Livez))
	return mux
}

func write(w http.ResponseWriter, a Answer) {
	for name, value := range a.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) // the client went away
}

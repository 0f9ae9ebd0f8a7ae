// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podwall/podwall/internal/web"
)

// Endpoints are where to serve, each as host:port. An empty one is off. When
// both are equal one server answers for both.
type Endpoints struct {
	Health      string
	Metrics     string
	MetricsPath string
	// Log receives what net/http complains about, at debug level; nil means
	// nowhere.
	Log *slog.Logger
}

// Server is the open ports of an Observer.
type Server struct {
	parts []part
}

// part is one address.
type part struct {
	listener net.Listener
	server   *http.Server
}

// Serve listens and answers until ctx ends. A port that cannot be opened is an
// error at once.
func (o *Observer) Serve(ctx context.Context, e Endpoints) error {
	s, err := o.Listen(e)
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Listen opens the ports, so that a port in use is found before anything else
// is done. Nothing is answered before Run; without Run, call Close.
func (o *Observer) Listen(e Endpoints) (*Server, error) {
	s := &Server{}
	if e.Health != "" {
		mux := o.statusHandler()
		if e.Metrics == e.Health {
			o.serveMetrics(mux, e.MetricsPath)
		}
		if err := s.open(e.Health, "health", mux, e.Log); err != nil {
			return nil, err
		}
	}
	if e.Metrics != "" && e.Metrics != e.Health {
		mux := http.NewServeMux()
		o.serveMetrics(mux, e.MetricsPath)
		if err := s.open(e.Metrics, "metrics", mux, e.Log); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (s *Server) open(addr, purpose string, handler http.Handler, log *slog.Logger) error {
	// Nothing here outlives the call, so the listener needs no context.
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listening on %s for %s: the port is in use by another program; stop it or choose "+
			"another port with --%s-port: %w", addr, purpose, purpose, err)
	}
	if err != nil {
		return fmt.Errorf("listening on %s for %s: %w", addr, purpose, err)
	}
	s.parts = append(s.parts, part{listener, web.New(handler, log)})
	return nil
}

// Addrs returns the addresses that are open, health first.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.parts))
	for i, p := range s.parts {
		addrs[i] = p.listener.Addr()
	}
	return addrs
}

// Run answers until ctx ends, then finishes the requests it has begun, within
// two seconds. With nothing open it only waits.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range s.parts {
		group.Go(func() error {
			if err := p.server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serving on %s: %w", p.listener.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		s.shutdown()
		return nil
	})
	return group.Wait()
}

func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, p := range s.parts {
		if p.server.Shutdown(ctx) != nil {
			_ = p.server.Close() // it is going away in any case
		}
	}
}

// Close closes the ports of a server that does not run.
func (s *Server) Close() {
	for _, p := range s.parts {
		_ = p.listener.Close() // nothing was written
	}
}

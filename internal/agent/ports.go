// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podwall/podwall/internal/observe"
)

// tryPorts is the pause before a port of another program is tried again.
const tryPorts = 2 * time.Second

// ports are what the agent serves on one address. If another program has the port, only this is not
// served: it is a problem, and tried again.
type ports struct {
	endpoints observe.Endpoints
	observer  *observe.Observer
	server    *observe.Server // nil while the port cannot be had
	subject   string          // of the problem
}

// openPorts opens the ports for health and metrics, each by itself unless both are
// one. What cannot pass is an error.
func openPorts(o *observe.Observer, e observe.Endpoints) (list []*ports, err error) {
	health, metrics := e, e
	health.Metrics, metrics.Health = "", ""
	all := []*ports{{endpoints: health, observer: o, subject: "port for health"},
		{endpoints: metrics, observer: o, subject: "port for metrics"}}
	if e.Health == e.Metrics {
		all = []*ports{{endpoints: e, observer: o, subject: "port for health"}}
	}
	for _, p := range all {
		if err := p.open(); err != nil {
			for _, opened := range list {
				opened.close()
			}
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// open tries once.
func (p *ports) open() error {
	server, err := p.observer.Listen(p.endpoints)
	switch {
	case canPass(err):
		problem := p.problem(err)
		if p.endpoints.Log != nil {
			problem.Log(p.endpoints.Log)
		}
		p.observer.SetProblem(problem)
		return nil
	case err != nil:
		return err
	}
	p.server = server
	return nil
}

// canPass reports whether the port may be had later. A name may have an address when DNS
// answers.
func canPass(err error) bool {
	var name *net.DNSError
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.As(err, &name)
}

func (p *ports) problem(err error) observe.Problem {
	problem := observe.Problem{Subject: p.subject, Text: "the port is not served, policies are enforced anyway: " +
		err.Error(),
		Cure: "end the program that has the port, or choose another one; it is tried again until then"}
	switch {
	case !errors.Is(err, unix.EADDRINUSE):
		problem.Cure = "give the node the address, or correct the flag; it is tried again until then"
	case heldByUser([]string{p.endpoints.Health, p.endpoints.Metrics}):
		problem.Text = "a user's process has it, so " + problem.Text
		problem.Cure = "end that process; no program of a user may run in the node's network namespace"
	}
	return problem
}

func (p *ports) close() {
	if p.server != nil {
		p.server.Close()
	}
}

// Run answers until ctx ends.
func (p *ports) Run(ctx context.Context) error {
	for p.server == nil && ctx.Err() == nil {
		pause(ctx, tryPorts)
		if server, err := p.observer.Listen(p.endpoints); err == nil {
			p.server = server
			p.observer.ClearProblem(p.subject)
			if p.endpoints.Log != nil {
				observe.LogResolved(p.endpoints.Log, p.subject)
			}
		}
	}
	if p.server == nil {
		return nil
	}
	return p.server.Run(ctx)
}

// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/cluster"
)

// Services is the state of the service proxy. Counts describe what the kernel holds.
type Services struct {
	// Revision counts the changes of what Services depend on, up to what is served.
	Revision uint64 `json:"revision"`
	// SourceID is the source's own name for the content that is served, as in Status.
	SourceID string `json:"sourceID,omitempty"`
	Services int    `json:"services"`
	Fronts   int    `json:"fronts"`   // addresses and ports at which they are served
	Backends int    `json:"backends"` // of all fronts
	// HealthPorts are health-check node ports.
	HealthPorts int `json:"healthCheckNodePorts"`
	// WithoutEndpoints are the first Services, by name, that have no backend; Idle is how many there are.
	WithoutEndpoints []string `json:"withoutEndpoints,omitempty"`
	Idle             int      `json:"servicesWithoutEndpoints"`
	// LastApply is the last pass, nil before the first.
	LastApply *Apply `json:"lastApply,omitempty"`
	// DriftRepairs counts differences in the tables that this agent did not make and repaired.
	DriftRepairs uint64 `json:"driftRepairs"`
	// Ended are entries of the connection table that led to a backend that went, Forgotten clients with
	// affinity whose backend went, since the agent started.
	Ended     uint64 `json:"connectionsEnded"`
	Forgotten uint64 `json:"clientsForgotten"`
	// Drops are first packets of connections that were rejected or dropped, by the name of the counter.
	Drops map[string]uint64 `json:"rejectedOrDropped,omitempty"`
	// Diagnostics are what is wrong with Services and EndpointSlices.
	Diagnostics []cluster.Diagnostic `json:"diagnostics"`
}

// maxNamed is how many Services without endpoints the status names.
const maxNamed = 50

// ServicePass is the outcome of one turn of the service proxy's loop.
type ServicePass struct {
	Revision uint64
	SourceID string
	Full     bool // the tables were read from the kernel
	Elapsed  time.Duration
	// Err is why the kernel does not agree now. The counts below are ignored when it is set.
	Err                                     error
	Services, Fronts, Backends, HealthPorts int
	WithoutEndpoints                        []cluster.Key
	// Repairs are differences that others made, Ended entries of the connection table, Forgotten clients.
	Repairs, Ended, Forgotten int
	// Diagnostics are all that hold now. The slice must not be changed later.
	Diagnostics []cluster.Diagnostic
}

// serviceState is what the observer knows of the service proxy.
type serviceState struct {
	status  Services
	metrics *serviceMetrics
	missing []cluster.Kind
	pending error // why the last pass failed
	served  bool  // one pass has succeeded
	drops   map[string]uint64
}

// ServiceDropReasons are why first packets of connections to Services are rejected or dropped.
func ServiceDropReasons() []string {
	return []string{"drop-missing-slot", "drop-no-backend", "drop-not-admitted", "drop-unallocated",
		"reject-no-backend", "reject-unknown-port"}
}

// RunServices says that the service proxy runs in this agent: the node is not ready before it serves. It is
// to be called once, before the other methods about Services.
func (o *Observer) RunServices() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.services = &serviceState{metrics: newServiceMetrics(newBuilder(o.reg)), missing: cluster.ServiceKinds()}
}

// SetMissingServices records the kinds whose first complete list has not arrived.
func (o *Observer) SetMissingServices(missing []cluster.Kind) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.services.missing = slices.Clone(missing)
}

// RecordServices takes the outcome of a pass. A pass that failed leaves the counts as they were.
func (o *Observer) RecordServices(p ServicePass) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.services
	now := time.Now()
	s.pending, s.status.Diagnostics = p.Err, p.Diagnostics
	s.status.LastApply = &Apply{Time: now, Seconds: p.Elapsed.Seconds(), Kind: kind(p.Full)}
	s.status.DriftRepairs += uint64(p.Repairs)
	s.status.Ended += uint64(p.Ended)
	s.status.Forgotten += uint64(p.Forgotten)
	s.metrics.record(p, now)
	if p.Err != nil {
		s.status.LastApply.Error = p.Err.Error()
		return
	}
	s.served = true
	s.status.Revision, s.status.SourceID, s.status.Services = p.Revision, p.SourceID, p.Services
	s.status.Fronts, s.status.Backends, s.status.HealthPorts = p.Fronts, p.Backends, p.HealthPorts
	s.status.Idle, s.status.WithoutEndpoints = len(p.WithoutEndpoints), nil
	for _, k := range p.WithoutEndpoints[:min(len(p.WithoutEndpoints), maxNamed)] {
		s.status.WithoutEndpoints = append(s.status.WithoutEndpoints, k.String())
	}
}

// SetServiceDrops records the counters of the tables of Services. One that went back was made from 0 by the
// kernel.
func (o *Observer) SetServiceDrops(counters map[string]uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.services
	all := map[string]uint64{} // /statusz may still be reading the last one
	for _, reason := range ServiceDropReasons() {
		more := grown(s.drops[reason], counters[reason])
		all[reason] = s.status.Drops[reason] + more
		s.metrics.drops.WithLabelValues(reason).Add(float64(more))
	}
	s.drops, s.status.Drops = maps.Clone(counters), all
}

// AddServiceProgramming records how long it took from a change to the kernel's answer.
func (o *Observer) AddServiceProgramming(took time.Duration) {
	o.services.metrics.programming.Observe(took.Seconds())
}

// AddEndpointProgramming records how long it took from the change of a pod or a Service that made the
// controller write an EndpointSlice to the kernel's answer. It compares clocks of two machines.
func (o *Observer) AddEndpointProgramming(took time.Duration) {
	o.services.metrics.network.Observe(max(0, took.Seconds()))
}

// notServed returns why Services are not known to be served.
func (s *serviceState) notServed() (reasons []string) {
	switch {
	case s == nil:
		return nil
	case len(s.missing) > 0:
		names := make([]string, len(s.missing))
		for i, k := range s.missing {
			names[i] = k.String()
		}
		reasons = append(reasons, "Services wait for the first complete list of "+strings.Join(names, ", "))
	case s.pending == nil && !s.served:
		reasons = append(reasons, "Services are not served yet")
	}
	if s.pending != nil {
		reasons = append(reasons, "the last pass of Services failed: "+s.pending.Error())
	}
	return reasons
}

// copied returns the status, which the caller may keep; nil without a service proxy.
func (s *serviceState) copied() *Services {
	if s == nil {
		return nil
	}
	c := s.status
	if c.LastApply != nil {
		last := *c.LastApply
		c.LastApply = &last
	}
	// A program that reads the JSON should meet a list, not null.
	c.Diagnostics = append([]cluster.Diagnostic{}, c.Diagnostics...)
	return &c
}

// write writes the rows of the status for people.
func (s *Services) write(row func(name, format string, args ...any)) {
	if s == nil {
		return
	}
	row("services", "%d at %d fronts with %d backends, %d without endpoints", s.Services, s.Fronts, s.Backends, s.Idle)
	if s.Idle > 0 {
		row("- without", "%s%s", strings.Join(s.WithoutEndpoints, ", "), more(s.Idle-len(s.WithoutEndpoints)))
	}
	row("- last apply", "%s", s.LastApply)
	row("- repairs", "%d", s.DriftRepairs)
	row("- ended", "%d connections, %d clients forgotten", s.Ended, s.Forgotten)
	var drops []string
	for _, reason := range ServiceDropReasons() {
		if n := s.Drops[reason]; n > 0 {
			drops = append(drops, fmt.Sprintf("%s %d", reason, n))
		}
	}
	if len(drops) > 0 {
		row("- refused", "%s", strings.Join(drops, ", "))
	}
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

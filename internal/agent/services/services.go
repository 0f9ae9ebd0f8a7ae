// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package services runs the service proxy in the agent: what changed → index → model → tables → report. It
// is a loop of its own, so that neither a policy nor a Service delays or stops the other part.
package services

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/pace"
	"github.com/podwall/podwall/internal/proxy/health"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
	"github.com/podwall/podwall/internal/wake"
)

// Kernel is the write side as the loop uses it.
type Kernel interface {
	Apply(ctx context.Context, want tables.Desired) (tables.Report, error)
	// Verify makes the next Apply compare everything, if the kernel changed.
	Verify() error
	// Changed receives when something in the kernel needs an Apply.
	Changed() <-chan struct{}
	Counters() (map[string]uint64, error)
}

// Health answers load balancers.
type Health interface {
	SetServices([]service.Health)
	SetProxy(health.Proxy)
	// Problems are the ports that cannot be opened.
	Problems() []health.Problem
}

// Loop turns what a source delivers about Services into what the kernel does.
type Loop struct {
	Store    *cluster.Store // KeepServices was called
	Kernel   Kernel
	Observer *observe.Observer // RunServices was called
	Log      *slog.Logger
	Options  Options
	// Local returns the addresses of this network namespace.
	Local func() ([]netip.Addr, error)
	// Moved receives after they may have changed.
	Moved wake.Signal
	// Others watches for other service proxies. The first pass waits until there is none. May be nil.
	Others *Others
	// Health is told what load balancers may ask. May be nil.
	Health Health
	// PortsChanged receives after Health's problems have changed.
	PortsChanged wake.Signal
	// Node sets the node's settings for Services, looks for routes to these addresses of Services, and returns
	// what is wrong. It is called after the first pass and at each verification. May be nil.
	Node func(addrs []netip.Addr) []observe.Problem
	// Limits returns what the kernel does not do as Services ask for, after each pass. May be nil.
	Limits func() []observe.Problem
	// APIServer is where the agent reaches the API server; the zero value if it is not known by address.
	APIServer  netip.AddrPort
	SyncPeriod time.Duration // between two verifications against the kernel
	Clock      func() int64  // that of the store; nil: nothing is timed
	// Served is called once, after the first pass that succeeded. May be nil.
	Served func()

	started  time.Time
	naming   sync.Mutex  // guards the index against who asks for names
	mute     atomic.Bool // to ask for names had a panic
	index    *service.Index
	own      *cluster.Node
	local    []netip.Addr
	settings service.Settings
	rest     pace.Rest
	waited   int64 // since when the oldest change waits that is not in force; 0 for none
	served   bool  // the first pass succeeded
	// unsettled is true if clients or connections of backends that went could not be ended.
	unsettled bool
	// later is when the next pass shall be for connections that wait, after the last one; 0 if none do.
	later  time.Duration
	read   time.Time       // when the counters were read last
	known  map[string]bool // subjects of the problems that there are
	ports  []string        // subjects of those of Health
	found  []string        // subjects of those of Node
	beside []string        // subjects of those of Others
	limits []string        // subjects of those of Limits
	model  *service.Model  // of the last pass that succeeded
	state  health.Proxy
}

// countEach is how often the kernel's counters are read between passes.
const countEach = time.Second

// look is how often is looked whether the other proxy has gone.
const look = time.Second

// Run runs the loop until ctx ends. The kernel is not touched before every kind that Services need is
// complete, nor while another proxy is there. What goes wrong is a problem, never an error: policies must go
// on.
func (l *Loop) Run(ctx context.Context) {
	l.started = time.Now()
	ctx, end := context.WithCancel(ctx)
	defer end()
	if !l.awaitSync(ctx) || !l.awaitOthers(ctx) {
		return
	}
	// The first changes name all nodes, and the index keeps only this one's object.
	l.settings.Node = l.Options.Node
	l.naming.Lock()
	l.index = service.NewIndex(l.settings)
	l.naming.Unlock()
	verify := time.NewTicker(l.SyncPeriod)
	defer verify.Stop()
	again, retry := time.NewTimer(0), pace.Retry{}
	defer again.Stop()
	others, failed := make(chan []observe.Problem), make(chan error, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer end() // before it waits, also in a panic
	changed, moved := l.Store.ServicesChanged(), l.Kernel.Changed()
	for {
		select {
		case <-ctx.Done():
			return
		case <-verify.C:
			l.verify()
		case <-changed:
			l.gather(ctx)
		case <-moved:
			l.gather(ctx)
		case <-l.Moved:
			l.local = nil
		case <-l.PortsChanged:
			l.checkPorts()
			continue
		case err := <-failed:
			if err != nil {
				panic(err) // as if it had been here
			}
			continue
		case list := <-others:
			l.beside = l.replace(l.beside, list)
			continue
		case <-again.C:
		}
		if ctx.Err() != nil {
			return // select does not prefer it
		}
		before := l.served
		err := l.pass(ctx)
		if l.served && !before && l.Others != nil {
			watching.Go(func() {
				failed <- Contain(func() error { l.Others.Watch(ctx, others); return nil })
			})
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.Log.Error("serving Services failed, the kernel keeps what it had", "err", err)
			again.Reset(l.soon(retry.Failed()))
			changed, moved = nil, nil // what comes meanwhile waits for it, too: each pass reads the tables
			continue
		case l.unsettled:
			again.Reset(l.soon(retry.Failed()))
		case l.later > 0:
			retry.Succeeded()
			again.Reset(l.later)
		default:
			retry.Succeeded()
		}
		changed, moved = l.Store.ServicesChanged(), l.Kernel.Changed()
	}
}

// soon returns how long to wait where something is due after that time, and connections may be earlier.
func (l *Loop) soon(wait time.Duration) time.Duration {
	if l.later > 0 {
		return min(wait, l.later)
	}
	return wait
}

// awaitSync waits for the first complete list of every kind. It returns false if ctx ended before.
func (l *Loop) awaitSync(ctx context.Context) bool {
	beat := time.NewTicker(look)
	defer beat.Stop()
	for {
		missing := l.Store.MissingServices()
		l.Observer.SetMissingServices(missing)
		if len(missing) == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-l.Store.ServicesChanged():
		case <-beat.C:
		}
	}
}

// awaitOthers waits until no other proxy is on this node. It returns false if ctx ended before.
func (l *Loop) awaitOthers(ctx context.Context) bool {
	for ctx.Err() == nil {
		if !l.checkOthers(ctx) {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(look):
		}
	}
	return false
}

// checkOthers reports, before the first pass, whether another proxy is on this node. It is a problem that
// blocks: Services are not served by this one.
func (l *Loop) checkOthers(ctx context.Context) bool {
	if l.Others == nil {
		return false
	}
	list := l.Others.Check(ctx, false)
	for i := range list {
		list[i].Blocking = true
	}
	l.beside = l.replace(l.beside, list)
	return len(list) > 0
}

// gather rests after the last pass, if that was just now.
func (l *Loop) gather(ctx context.Context) {
	if wait := l.rest.Left(); wait > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// pass is one turn: it brings what changed into the kernel.
func (l *Loop) pass(ctx context.Context) error {
	start := time.Now()
	delta := l.Store.TakeServices()
	if l.waited == 0 {
		l.waited = delta.Since
	}
	if err := l.change(func(x *service.Index) error { return x.Apply(ctx, &delta) }); err != nil {
		return err // the agent ends
	}
	l.noteNode(delta.Nodes)
	model, report, err := l.apply(ctx)
	if err == nil {
		l.inForce(model, delta.Triggered)
		l.checkSettled(report.Unsettled)
	}
	l.later = report.Later
	if l.Limits != nil {
		l.limits = l.replace(l.limits, l.Limits())
	}
	first := !l.served && err == nil
	l.tellHealth(model, err)
	l.record(start, &delta, model, report, err)
	if first {
		l.lookAround()
		if l.Served != nil {
			l.Served()
		}
	}
	l.rest.After(start.Add(report.Scan))
	return err
}

// apply brings the model into the kernel, with the node's addresses of now.
func (l *Loop) apply(ctx context.Context) (*service.Model, tables.Report, error) {
	if err := l.adjust(ctx); err != nil {
		return l.index.Model(), tables.Report{}, err
	}
	model := l.index.Model()
	report, err := l.Kernel.Apply(ctx, tables.Desired{Model: model, Own: addressSet(l.local), Serving: l.index.Serves})
	return model, report, err
}

// noteNode takes over this node's object.
func (l *Loop) noteNode(changes []cluster.Change[cluster.Node]) {
	for _, c := range changes {
		if c.New != nil && c.New.Name == l.Options.Node || c.Old != nil && c.Old.Name == l.Options.Node {
			l.own = c.New
		}
	}
}

// adjust brings the settings up to date with the node.
func (l *Loop) adjust(ctx context.Context) error {
	if l.local == nil {
		local, err := l.Local()
		if err != nil {
			return fmt.Errorf("the addresses of this network namespace cannot be read: %w", err)
		}
		l.local = local
	}
	now := l.Options.settings(l.own, l.local, l.Store.Reserved(l.Options.APIServer))
	if !reflect.DeepEqual(now, l.settings) {
		l.settings = now
		return l.change(func(x *service.Index) error { return x.Set(ctx, now) })
	}
	return nil
}

// inForce does what follows a pass that succeeded.
func (l *Loop) inForce(model *service.Model, triggered []int64) {
	if l.waited != 0 && l.Clock != nil {
		l.Observer.AddServiceProgramming(time.Duration(l.Clock() - l.waited))
	}
	l.waited = 0
	now := time.Now()
	for _, at := range triggered {
		if at >= l.started.UnixNano() { // earlier ones are of an earlier process, or of who wrote the slice
			l.Observer.AddEndpointProgramming(now.Sub(time.Unix(0, at)))
		}
	}
	l.model = model
	l.checkNode()
	l.checkAPIServer(model)
}

// tellHealth says after a pass what load balancers may ask. After a failure they are told for how long the
// kernel has been behind.
func (l *Loop) tellHealth(model *service.Model, err error) {
	if l.Health == nil {
		return
	}
	now := time.Now()
	l.state.Leaving = l.own == nil || l.own.Leaving
	switch {
	case err == nil:
		l.state.Synced, l.state.Pending = now, time.Time{}
		l.Health.SetServices(model.Health)
	case l.state.Pending.IsZero():
		l.state.Pending = now
	}
	l.Health.SetProxy(l.state)
}

// verify has the next pass compare everything, if others changed the kernel, and looks around.
func (l *Loop) verify() {
	l.local = nil
	l.lookAround()
	if err := l.Kernel.Verify(); err != nil {
		l.Log.Error("verifying the tables of Services failed", "err", err)
	}
	l.count()
}

// addressSet returns whether an address is in a list.
func addressSet(list []netip.Addr) func(netip.Addr) bool {
	set := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		set[a] = true
	}
	return func(a netip.Addr) bool { return set[a] }
}

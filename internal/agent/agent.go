// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package agent wires the parts of the node agent together and runs its loop:
// what changed → index → model → program → kernel → report. It holds no logic
// of its own beyond the order of things and the waiting.
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/agent/flows"
	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/netpol/compile"
	"github.com/podwall/podwall/internal/netpol/denied"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/pace"
)

// Source delivers the cluster into the store until ctx ends.
type Source interface {
	Run(ctx context.Context, store *cluster.Store) error
}

// Kernel is the datapath as the loop uses it.
type Kernel interface {
	Apply(ctx context.Context, p *program.Program) (datapath.Report, error)
	// Cut ends the connections of which Denied says that they were found.
	Cut(ctx context.Context) (datapath.Cuts, error)
	Denied() <-chan struct{}
	// Verify makes the next Apply compare everything, if the kernel changed.
	Verify() error
	// Changed receives when something in the kernel needs an Apply.
	Changed() <-chan struct{}
	Counters() (map[string]uint64, error)
	// Connections is how full the connection table is; a limit of 0 is none.
	Connections() (entries, limit uint32, err error)
}

// Loop turns what a source delivers into what the kernel does.
type Loop struct {
	Node        string
	Store       *cluster.Store
	Kernel      Kernel
	Observer    *observe.Observer
	Log         *slog.Logger
	Options     compile.Options
	SyncPeriod  time.Duration   // between two verifications against the kernel
	SyncTimeout time.Duration   // for the first complete list of every kind
	Place       *Place          // must be right before anything is enforced; nil in tests only
	Gate        *Gate           // receives what the kernel enforces; may be nil
	OpenUnknown bool            // addresses that no known pod has are open
	Ready       func()          // is called once, after the first pass that succeeded; may be nil
	Clock       func() int64    // that of the store; nil: nothing is timed
	Recorder    *flows.Recorder // is told what is enforced; nil: denied flows are not recorded

	fair     *fair
	index    *policy.Index
	compiler *compile.Compiler
	layout   *policy.Layout  // of the program below
	chains   *compile.Layout // compiled from layout
	last     cluster.Delta   // what the last pass wanted, without the changes
	ready    bool            // the first pass succeeded
	rest     pace.Rest       // after the last pass
	read     time.Time       // when the counters were read last
	known    map[string]bool // subjects of the problems of the last pass
	counts   counts          // what can reach a limit
	full     map[string]bool // subjects of the limits that have a problem
	held     withheld
	starts   podStarts
	bypassed bool // the gate is; there is a problem
	holding  holding
	findings findings
	waited   int64    // since when the oldest change waits that is not in force; 0 for none
	taken    string   // version of the policies that the store had at the last Take
	whole    struct { // what is enforced with every policy
		revision uint64
		source   string
		policies string // their version
	}
}

// ErrNotSynced says that the source did not deliver everything in time.
var ErrNotSynced = errors.New("the first sync did not complete in time")

// countEach is how often the kernel's counters are read between passes.
const countEach = time.Second

// Run runs the loop until ctx ends. The kernel is not touched before every
// watched kind is complete; if that takes longer than SyncTimeout, Run returns
// ErrNotSynced.
func (l *Loop) Run(ctx context.Context) error {
	if err := l.awaitSync(ctx); err != nil || ctx.Err() != nil {
		return err // ended early: what the store holds may be nothing yet
	}
	if err := l.awaitPlace(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	l.fair, l.index, l.compiler = newFair(l.Node, l.OpenUnknown), policy.NewIndex(l.Node),
		compile.NewCompiler(l.Options)
	verify := time.NewTicker(l.SyncPeriod)
	defer verify.Stop()
	again, retry := time.NewTimer(0), pace.Retry{}
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-verify.C:
			l.verify()
			continue // Verify wakes us through Changed if there is something to do
		case <-l.Store.Changed():
			l.gather(ctx)
		case <-l.Kernel.Changed():
			l.gather(ctx)
		case <-l.Kernel.Denied():
			l.gather(ctx)
			if !l.news() && l.cut(ctx) == nil {
				continue
			}
		case <-l.hurry():
		case <-again.C:
		}
		if ctx.Err() != nil {
			return nil // select does not prefer it
		}
		err := l.pass(ctx)
		switch {
		case err == nil:
			retry.Succeeded()
			if wait, ok := l.fair.next(time.Now()); ok {
				again.Reset(wait)
			}
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, datapath.ErrUnsupported):
			return err
		default:
			l.Log.Error("enforcing failed, the kernel keeps what it had", "revision", l.last.Revision, "err", err)
			again.Reset(retry.Failed())
		}
	}
}

// awaitSync waits for the first complete list of every kind. It returns nil
// also when ctx ends.
func (l *Loop) awaitSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.SyncTimeout, ErrNotSynced)
	defer cancel()
	beat := time.NewTicker(min(l.SyncPeriod, time.Second))
	defer beat.Stop()
	for {
		missing := l.Store.Missing()
		l.Observer.Beat()
		l.Observer.SetMissing(missing)
		if len(missing) == 0 {
			l.Log.Info("first sync complete")
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), ErrNotSynced) {
				return fmt.Errorf("%w: no complete list of %v after %s%s", ErrNotSynced, missing, l.SyncTimeout,
					l.Observer.Causes())
			}
			return nil
		case <-l.Store.Changed():
		case <-beat.C:
		}
	}
}

// pass is one turn: it enforces what changed, pods of this node first.
func (l *Loop) pass(ctx context.Context) error {
	taken := l.Store.Take()
	l.taken = taken.PolicyVersion
	l.nameChanges(taken)
	l.waited = cmp.Or(l.waited, taken.Since)
	l.noteStarts(taken)
	first, rest := l.fair.admit(taken, time.Now()), cluster.Delta{}
	if l.ready { // else everything is needed at once
		first, rest = localFirst(first, l.Node, l.OpenUnknown)
	}
	err := l.enforce(ctx, first, rest)
	switch {
	case rest.Revision == 0:
		return err
	case err != nil:
		l.index.Apply(rest) // for the next pass
		return err
	}
	return l.enforce(ctx, rest, cluster.Delta{})
}

// enforce is the table of contents of this program. later is what the delta leaves to
// the next one, the zero Delta if nothing.
func (l *Loop) enforce(ctx context.Context, delta, later cluster.Delta) error {
	start := time.Now()
	if len(delta.Nodes) > 0 {
		_ = l.checkPlace() // once it has passed it only finds problems
	}
	l.index.Apply(delta)
	delta.Namespaces, delta.Pods, delta.Policies, delta.Nodes = nil, nil, nil, nil
	l.last = delta

	model := l.index.Model()
	program := l.compile(model)
	report, err := l.Kernel.Apply(ctx, program)

	if err == nil {
		if l.Recorder != nil {
			l.Recorder.Enforce(denied.NewView(model.Layout, program))
		}
		_, waits := l.fair.next(start)
		whole := later.Revision == 0 && !waits
		l.held.passed(delta, append(addressesOf(later.Pods, l.Node), report.Held...), whole)
		if whole {
			l.whole.revision, l.whole.source = l.held.reached, l.held.source
			l.whole.policies = l.taken // pods that are held are closed, whatever policies say
		}
		if whole && len(report.Held) == 0 && l.waited != 0 && l.Clock != nil {
			l.Observer.AddProgramming(time.Duration(l.Clock() - l.waited))
			l.waited = 0
		}
	}
	l.record(start, model, report, err)
	l.rest.After(start)
	if err == nil && l.Gate != nil {
		l.Gate.done.reach(delta.Revision, l.waiting(model, later, report.Held))
	}
	return err
}

// news reports whether the store has changes that no pass took. What they allow must
// not be ended before.
func (l *Loop) news() bool {
	select {
	case <-l.Store.Changed():
		return true
	default:
		return false
	}
}

// cut ends connections that are denied. After a failure a pass does it, which reads
// what the kernel has if that is not known any more.
func (l *Loop) cut(ctx context.Context) error {
	start := time.Now()
	cuts, err := l.Kernel.Cut(ctx)
	if err != nil {
		if ctx.Err() == nil {
			l.Log.Warn("ending denied connections failed, trying again", "err", err)
		}
		return err
	}
	l.Observer.Beat()
	l.countCuts(cuts)
	l.compare()
	l.rest.After(start)
	return nil
}

// waiting returns the pods of this node that the kernel does not have yet, whatever
// the revision: those that wait for policies, for the next commit (where unknown pods
// are open, for that of their policies), or for a look at the connection table.
func (l *Loop) waiting(m *policy.Model, later cluster.Delta, held []netip.Addr) map[cluster.Key]bool {
	keys := l.fair.held()
	for _, c := range later.Pods {
		if c.New != nil && c.New.Node == l.Node {
			keys[c.New.Key] = true
		}
	}
	behind := map[string][]cluster.Change[cluster.Policy]{}
	if l.OpenUnknown {
		behind = byNamespace(later.Policies)
	}
	if len(held)+len(behind) == 0 {
		return keys
	}
	addrs := map[netip.Addr]bool{}
	for _, a := range held {
		addrs[a] = true
	}
	for _, w := range m.Layout.Workloads {
		if behind[w.Pod.Key.Namespace] != nil || slices.ContainsFunc(w.Pod.IPs,
			func(a netip.Addr) bool { return addrs[a] }) {
			keys[w.Pod.Key] = true
		}
	}
	return keys
}

// gather rests after the last pass, if that was just now. A pod that waits at the
// gate ends it.
func (l *Loop) gather(ctx context.Context) {
	wait := l.rest.Left()
	if wait <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-l.hurry():
	case <-time.After(wait):
	}
}

// hurry receives when a pod waits at the gate.
func (l *Loop) hurry() <-chan struct{} {
	if l.Gate == nil {
		return nil
	}
	return l.Gate.hurry
}

// compile compiles a model. As long as only the members of sets changed, the
// chains are taken from the last pass.
func (l *Loop) compile(m *policy.Model) *program.Program {
	if l.chains == nil || l.layout != m.Layout {
		l.layout, l.chains = m.Layout, l.compiler.Layout(m.Layout)
		if l.ready { // the first pass concerns all pods
			l.fair.charge(l.chains.Work, time.Now())
			l.fair.charge(membersWork(m.Filled), time.Now())
		}
	}
	l.last.Diagnostics = slices.Concat(l.last.Diagnostics, m.Diagnostics, l.chains.Diagnostics)
	return l.chains.Program(m.Sets)
}

// membersWork counts members of new sets as rules.
func membersWork(filled map[string]int) map[string]int {
	const each = 8 // members cost as much as a rule
	units := make(map[string]int, len(filled))
	for ns, n := range filled {
		units[ns] = n / each
	}
	return units
}

func (l *Loop) verify() {
	l.Observer.Beat()
	_ = l.checkPlace() // the addresses of this namespace may have changed
	if err := l.Kernel.Verify(); err != nil {
		l.Log.Error("verifying against the kernel failed", "err", err)
		return
	}
	if l.ready {
		l.drops()
		l.connections()
		l.compare()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/source/feed"
)

// Info is what never changes while the agent runs.
type Info struct {
	Node    string
	Version string
	Source  string // "manifests" or "kubernetes"
	// Period is the longest time that the loop sleeps between two passes. The
	// health answer allows twice of it, and one minute at least.
	Period time.Duration
}

// Pass is the outcome of one turn of the agent's loop that touched the kernel,
// or found that it need not.
type Pass struct {
	// Revision and SourceID say up to where everything is enforced. Seen is the
	// revision that the pass tried to enforce, if it held something back.
	Revision, Seen uint64
	SourceID       string
	// PolicyVersion is the version of the policies that are all enforced; empty if the source has none.
	PolicyVersion string
	// Full is true when the pass compared the whole kernel state, false when it
	// wrote a change only.
	Full    bool
	Elapsed time.Duration
	// Err is why the kernel does not agree now. The counts below are ignored
	// when it is set.
	Err error

	Pods, IsolatedPods, Policies int
	// AuditedPods are those that only audit mode leaves open; AuditedNames the first of them, by name, at most
	// MaxAudited. The slice must not be changed later.
	AuditedPods                   int
	AuditedNames                  []string
	Chains, Sets, Rules, Elements int
	// Repairs is the number of differences found that the agent did not make.
	Repairs int
	// Diagnostics are all that hold now. The slice must not be changed later.
	Diagnostics []cluster.Diagnostic
}

// MaxAudited is how many audited pods the status names.
const MaxAudited = 20

// Observer collects what the agent does. Its methods may be called from
// several goroutines. It starts none itself.
type Observer struct {
	info    Info
	reg     *prometheus.Registry
	metrics *metrics

	mu       sync.Mutex // guards everything below
	status   Status     // without Ready, NotReady and Problems, which are derived
	beat     time.Time
	missing  []cluster.Kind
	feeds    []feed.Feed
	pending  error // why the last pass failed
	enforced bool  // one pass has succeeded
	problems map[string]Problem
	drops    Drops
	audits   Audits
	held     []Held
	services *serviceState // nil: the service proxy does not run
	newest   func(revision uint64) (version string, ok bool)
}

// New returns an observer that waits for the first sync. It registers its
// metrics with reg, which must not hold another observer's.
func New(reg *prometheus.Registry, info Info) *Observer {
	now := time.Now()
	o := &Observer{
		info: info,
		reg:  reg,
		status: Status{Schema: Schema, Node: info.Node, Version: info.Version,
			Source: info.Source, Started: now},
		beat:     now,
		missing:  cluster.Kinds(),
		problems: map[string]Problem{},
	}
	o.metrics = newMetrics(newBuilder(reg), info.Version, computedValues{ready: o.isReady,
		policyVersion: o.policyNumber, held: o.countHeld})
	return o
}

// TellVersions has the version of policies read with each status: what changed nothing, as a label of a
// policy, brings no pass. newest returns it if nothing has changed since a revision. It is to be called before
// anything is served.
func (o *Observer) TellVersions(newest func(revision uint64) (version string, ok bool)) {
	o.newest = newest
}

// Beat records that the loop turned. The loop calls it at least once in
// Info.Period, also while it waits for the first sync.
func (o *Observer) Beat() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.beat = time.Now()
}

// SetMissing records the kinds whose first complete list has not arrived, as
// cluster.Store.Missing returns them. None means that everything is synced.
func (o *Observer) SetMissing(missing []cluster.Kind) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.missing = slices.Clone(missing)
}

// SetDatapath records how packets are judged.
func (o *Observer) SetDatapath(d Datapath) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.Families, d.Unsure, d.WithoutPod = slices.Clone(d.Families), maps.Clone(d.Unsure), slices.Clone(d.WithoutPod)
	maps.DeleteFunc(d.Unsure, func(_ string, n int) bool { return n == 0 })
	o.status.Datapath = d
	o.metrics.setOpen(d.Datapath == "open")
	o.metrics.withoutPod.Set(float64(len(d.WithoutPod)))
	for _, missing := range Unsures() {
		o.metrics.unsure.WithLabelValues(missing).Set(float64(d.Unsure[missing]))
	}
}

// Record takes the outcome of a pass. A pass that failed leaves the counts and
// the applied revision as they were: they describe what the kernel holds.
func (o *Observer) Record(p Pass) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := &o.status
	s.SeenRevision = max(p.Revision, p.Seen)
	s.Diagnostics = p.Diagnostics
	s.LastApply = &Apply{Time: time.Now(), Seconds: p.Elapsed.Seconds(), Kind: kind(p.Full)}
	o.pending = p.Err
	if p.Err != nil {
		s.LastApply.Error = p.Err.Error()
	} else {
		o.enforced = true
		s.Revision, s.SourceID, s.PolicyVersion = p.Revision, p.SourceID, p.PolicyVersion
		s.Pods, s.IsolatedPods, s.Policies = p.Pods, p.IsolatedPods, p.Policies
		s.AuditedPods, s.AuditedNames = p.AuditedPods, p.AuditedNames
		s.Chains, s.Sets, s.Rules, s.Elements = p.Chains, p.Sets, p.Rules, p.Elements
		s.DriftRepairs += uint64(p.Repairs)
	}
	o.metrics.record(p, s.LastApply.Time)
}

func kind(full bool) string {
	if full {
		return "full"
	}
	return "delta"
}

// SetProblem adds a problem, or replaces the one of the same subject. It keeps
// the time at which the subject first had one.
func (o *Observer) SetProblem(p Problem) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.Since = time.Now()
	if old, ok := o.problems[p.Subject]; ok {
		p.Since = old.Since
	}
	o.problems[p.Subject] = p
	o.metrics.setProblems(o.problems)
}

// ClearProblem removes the problem of a subject; none is no error.
func (o *Observer) ClearProblem(subject string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.problems, subject)
	o.metrics.setProblems(o.problems)
}

// AddProgramming records how long it took from a change to the kernel's answer.
func (o *Observer) AddProgramming(took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status.Programming = took.Seconds()
	o.metrics.programming.Observe(took.Seconds())
}

// GateAnswers are what the gate can answer.
func GateAnswers() []string { return []string{"enforced", "isolated", "unknown", "none", "refused"} }

// AddGate records the gate's answer about a pod.
func (o *Observer) AddGate(answer string, took time.Duration) {
	o.metrics.gatePods.WithLabelValues(answer).Inc()
	if answer != "refused" {
		o.metrics.gateWait.Observe(took.Seconds())
	}
}

// EventResults are what can become of an Event about a policy.
func EventResults() []string { return []string{"written", "exists", "failed", "dropped"} }

// AddEvent records what became of an Event about a policy.
func (o *Observer) AddEvent(result string) { o.metrics.events.WithLabelValues(result).Inc() }

// SourceErrors are why requests to the API server fail.
func SourceErrors() []string {
	return []string{"broken", "forbidden", "refused", "unauthorized", "unreachable"}
}

// AddSourceError records why a request to the API server failed.
func (o *Observer) AddSourceError(reason string) {
	o.metrics.sourceErrors.WithLabelValues(reason).Inc()
}

// AddUnannounced counts pods that started without the gate.
func (o *Observer) AddUnannounced(pods int) { o.metrics.unannounced.Add(float64(pods)) }

// Cuts are connections that were ended, and what it took to find them.
type Cuts struct {
	// Ingress and Egress were ended because the policies of that direction deny
	// them now, Reused because an address has another pod now, Gone because the pod
	// is gone.
	Ingress, Egress, Reused, Gone int
	// Refused is how many packets are refused now that would revive connections.
	Refused int
	// Scans of the connection table, with so many entries, took Elapsed.
	Scans, Entries int
	Elapsed        time.Duration
}

// AddCuts adds what was done since the last call.
func (o *Observer) AddCuts(c Cuts) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.status.Cut += uint64(c.Ingress + c.Egress + c.Reused + c.Gone)
	o.status.Refused = c.Refused
	o.metrics.addCuts(c)
}

// Status returns the state at this moment. The caller may keep it.
func (o *Observer) Status() Status {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.status
	if s.LastApply != nil {
		last := *s.LastApply
		s.LastApply = &last
	}
	if s.Connections != nil {
		c := *s.Connections
		s.Connections = &c
	}
	s.PolicyVersion = o.policyVersion()
	// A program that reads the JSON should meet lists, not null.
	s.Diagnostics = append([]cluster.Diagnostic{}, s.Diagnostics...)
	s.Problems = o.sortedProblems()
	s.Feeds = o.feedList()
	s.Services = o.services.copied()
	s.Held = o.longHeld(time.Now())
	s.NotReady = o.notReady(time.Now())
	s.Ready = len(s.NotReady) == 0
	return s
}

// policyVersion is the version of the policies that are all enforced.
func (o *Observer) policyVersion() string {
	if o.newest != nil && o.enforced {
		if version, ok := o.newest(o.status.Revision); ok {
			return version
		}
	}
	return o.status.PolicyVersion
}

// policyNumber is that as a number, 0 if it is none.
func (o *Observer) policyNumber() float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := strconv.ParseUint(o.policyVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return float64(n)
}

func (o *Observer) sortedProblems() []Problem {
	list := make([]Problem, 0, len(o.problems))
	for _, p := range o.problems {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Problem) int { return strings.Compare(a.Subject, b.Subject) })
	return list
}

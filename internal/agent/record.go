// SPDX-License-Identifier: Apache-2.0

//go:build linux

package agent

import (
	"slices"
	"time"

	"github.com/podwall/podwall/internal/datapath"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/ruleset"
	"github.com/podwall/podwall/internal/observe"
)

// record tells the observer what a pass did and found.
func (l *Loop) record(start time.Time, m *policy.Model, r datapath.Report, err error) {
	elapsed := time.Since(start)
	pass := observe.Pass{
		Revision: l.whole.revision, Seen: l.last.Revision, SourceID: l.whole.source, PolicyVersion: l.whole.policies,
		Diagnostics: l.last.Diagnostics,
		Full:        r.Full, Elapsed: elapsed, Err: err, Repairs: r.Drift,
		Pods: len(m.Layout.Workloads), IsolatedPods: isolated(m), Policies: policies(m),
	}
	pass.AuditedPods, pass.AuditedNames = audited(m)
	l.count(&pass, r)
	l.Observer.Beat()
	l.findings.say(start, l.last.Diagnostics, l.Log)
	if err == nil { // else the report is not complete
		l.Observer.SetDatapath(l.datapath(r))
		l.Observer.SetHeld(l.holding.update(start, l.heldPods(m, r)))
		l.countCuts(r.Cuts)
		l.problems(r.Problems)
		if !l.ready {
			l.connections() // later once in a period
		}
		l.compare()
	}
	l.report(pass, r)
	l.Observer.Record(pass) // last: who sees that the node is ready finds the line in the log
	if err == nil && time.Since(l.read) >= countEach {
		l.drops()
	}
}

func (l *Loop) countCuts(c datapath.Cuts) {
	l.counts.refused = c.Refused
	l.Observer.AddCuts(observe.Cuts{Ingress: c.Ingress, Egress: c.Egress, Reused: c.Reused, Gone: c.Gone,
		Refused: c.Refused,
		Scans:   c.Scans.Times, Entries: c.Scans.Entries, Elapsed: c.Scans.Duration})
}

func (l *Loop) report(pass observe.Pass, r datapath.Report) {
	if pass.Err != nil || r.Open {
		return // the caller logs it; a problem says it
	}
	if r.Drift > 0 {
		l.Log.Warn("another program changed podwall's table, repaired", "count", r.Drift)
	}
	if !l.ready {
		l.ready = true
		if l.Ready != nil {
			l.Ready()
		}
		l.Log.Info("policies are enforced", "revision", pass.Revision, "pods", pass.Pods,
			"isolated", pass.IsolatedPods, "elapsed", pass.Elapsed)
		return
	}
	l.Log.Debug("apply complete", "revision", pass.Revision, "full", pass.Full, "changes", r.Changes,
		"count", r.Elements, "elapsed", pass.Elapsed)
}

// count adds what the kernel holds; the table is nil after a failure.
func (l *Loop) count(pass *observe.Pass, r datapath.Report) {
	t := r.Table
	if t == nil {
		return
	}
	l.counts.take(t, r.Cuts.Refused)
	pass.Chains, pass.Sets = len(t.Chains), len(t.Sets)
	pass.Rules, pass.Elements = l.counts.rules, l.counts.elements
}

// problems replaces what the last pass said by what this one says.
func (l *Loop) problems(now []decide.Problem) {
	stays := map[string]bool{}
	for _, found := range now {
		p := observe.Problem{Subject: found.Subject, Text: found.Text, Cure: found.Cure, Blocking: found.Blocking}
		stays[p.Subject] = true
		if !l.known[p.Subject] {
			p.Log(l.Log)
		}
		l.Observer.SetProblem(p)
	}
	for subject := range l.known {
		if !stays[subject] {
			observe.LogResolved(l.Log, subject)
			l.Observer.ClearProblem(subject)
		}
	}
	l.known = stays
}

func (l *Loop) datapath(r datapath.Report) observe.Datapath {
	d := observe.Datapath{Datapath: "nat", Guard: "off", GuardReason: r.GuardWhy,
		Unsure: r.Unsure, WithoutPod: r.WithoutPod}
	switch {
	case r.Open:
		d.Datapath = "open"
	case r.Filter:
		d.Datapath = "filter"
	}
	if r.Guard {
		d.Guard = "on"
	}
	if !l.Options.ClosedIPv4 {
		d.Families = append(d.Families, "ipv4")
	}
	if !l.Options.ClosedIPv6 {
		d.Families = append(d.Families, "ipv6")
	}
	return d
}

// heldPods returns the pods of this node that are closed until something is done.
func (l *Loop) heldPods(m *policy.Model, r datapath.Report) []heldPod {
	pods := slices.Concat(heldBy(m, r.Held, observe.HeldConnections), heldBy(m, r.Elsewhere, observe.HeldElsewhere))
	for key := range l.fair.held() {
		pods = append(pods, heldPod{key, observe.HeldPolicies})
	}
	return pods
}

// drops tells the observer what was dropped so far.
func (l *Loop) drops() {
	counters, err := l.Kernel.Counters()
	if err != nil {
		return
	}
	l.read = time.Now()
	l.Observer.SetDrops(dropsOf(counters))
	l.Observer.SetAudits(observe.Audits{Ingress: counters[ruleset.CounterAuditIngress],
		Egress: counters[ruleset.CounterAuditEgress]})
}

// dropReasons says why a counter of the rules counts; "" is of no drops of others: the self-test's own,
// and what audit mode lets pass.
func dropReasons() map[string]observe.DropReason {
	return map[string]observe.DropReason{
		ruleset.CounterIngress: observe.DropPolicyIngress, ruleset.CounterEgress: observe.DropPolicyEgress,
		ruleset.CounterUnknownPod: observe.DropUnknownPod,
		ruleset.CounterSpoofed:    observe.DropSource, ruleset.CounterSpoofedFrame: observe.DropSource,
		ruleset.CounterInvalid: observe.DropInvalid, ruleset.CounterStacked: observe.DropInvalid,
		ruleset.CounterBroadcast: observe.DropBroadcast, ruleset.CounterCut: observe.DropCut,
		ruleset.CounterSelfTest: "", ruleset.CounterAuditIngress: "", ruleset.CounterAuditEgress: "",
	}
}

// dropsOf sums the counters by why the packets were dropped.
func dropsOf(counters map[string]uint64) observe.Drops {
	reasons, drops := dropReasons(), observe.Drops{}
	for name, n := range counters {
		if reason := reasons[name]; reason != "" {
			drops[reason] += n
		}
	}
	return drops
}

func isolated(m *policy.Model) int {
	n := 0
	for _, w := range m.Layout.Workloads {
		if w.Ingress.Isolated || w.Egress.Isolated {
			n++
		}
	}
	return n
}

// audited counts the pods that policies in audit mode would isolate, and names the first of them.
func audited(m *policy.Model) (n int, names []string) {
	for _, w := range m.Layout.Workloads {
		if !w.AuditIngress.Isolated && !w.AuditEgress.Isolated {
			continue
		}
		n++
		name := w.Pod.Key.String()
		i, _ := slices.BinarySearch(names, name)
		if names = slices.Insert(names, i, name); len(names) > observe.MaxAudited {
			names = names[:observe.MaxAudited]
		}
	}
	return n, names
}

// policies counts the policies that isolate a local pod.
func policies(m *policy.Model) int {
	seen := map[*policy.Resolved]bool{}
	for _, w := range m.Layout.Workloads {
		for _, list := range [][]*policy.Resolved{w.Ingress.Policies, w.Egress.Policies} {
			for _, r := range list {
				seen[r] = true
			}
		}
	}
	return len(seen)
}

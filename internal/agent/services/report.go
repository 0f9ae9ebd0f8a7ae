// SPDX-License-Identifier: Apache-2.0

//go:build linux

package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/observe"
	"github.com/podwall/podwall/internal/proxy/program"
	"github.com/podwall/podwall/internal/proxy/service"
	"github.com/podwall/podwall/internal/proxy/tables"
)

// record tells the observer what a pass did and found.
func (l *Loop) record(start time.Time, delta *cluster.ServiceDelta, m *service.Model, r tables.Report, err error) {
	pass := observe.ServicePass{
		Revision: delta.Revision, SourceID: delta.Source, Full: r.Full, Elapsed: time.Since(start), Err: err,
		Services: l.index.Len(), WithoutEndpoints: l.index.WithoutEndpoints(),
		Fronts: m.IPv4.Routes.Len() + m.IPv6.Routes.Len(), Backends: m.IPv4.Slots.Len() + m.IPv6.Slots.Len(),
		HealthPorts: len(m.Health), Repairs: r.Drift, Forgotten: r.Forgotten, Ended: r.Ended,
		Diagnostics: cluster.BoundFindings(slices.Concat(delta.Diagnostics, l.index.Diagnostics())),
	}
	l.say(pass, r)
	l.Observer.RecordServices(pass) // last: who sees that the node is ready finds the line in the log
	if err == nil && time.Since(l.read) >= countEach {
		l.count()
	}
}

func (l *Loop) say(pass observe.ServicePass, r tables.Report) {
	if pass.Err != nil {
		return // the caller logs it
	}
	if r.Drift > 0 {
		l.Log.Warn("another program changed podwall's tables of Services, repaired", "count", r.Drift)
	}
	if !l.served {
		l.served = true
		l.Log.Info("Services are served", "revision", pass.Revision, "services", pass.Services, "fronts", pass.Fronts,
			"backends", pass.Backends, "elapsed", pass.Elapsed)
		return
	}
	l.Log.Debug("apply of Services complete", "revision", pass.Revision, "full", pass.Full, "changes", r.Changes,
		"count", r.Elements, "ended", r.Ended, "elapsed", pass.Elapsed)
}

// count tells the observer what was rejected and dropped so far.
func (l *Loop) count() {
	if counters, err := l.Kernel.Counters(); err == nil {
		l.read = time.Now()
		l.Observer.SetServiceDrops(counters)
	}
}

// checkNode says what cannot be served because this node is not known well.
func (l *Loop) checkNode() {
	const subject = "Services of this node"
	s := l.settings
	switch {
	case l.own == nil:
		l.problem(observe.Problem{Subject: subject, Text: fmt.Sprintf("there is no Node %q: node ports are not served "+
			"here, and the node's own endpoints are not known", s.Node),
			Cure: "set NODE_NAME from the field spec.nodeName, or give the Node's name with --hostname-override"})
	case len(s.NodePortAddresses) == 0:
		l.problem(observe.Problem{Subject: subject, Text: "no address of the Node is one of this machine: node ports " +
			"are served nowhere here", Cure: "correct the Node's status.addresses, or use --nodeport-bindon-all-ip"})
	default:
		l.checkPods(subject)
	}
	l.checkRanges()
}

// checkPods says for which families the ranges of pods are not known, and what that means for clients.
func (l *Loop) checkPods(subject string) {
	s := l.settings
	var lost []string
	for _, f := range inet.Families {
		ofFamily := func(p netip.Prefix) bool { return inet.FamilyOf(p.Addr()) == f }
		has := slices.ContainsFunc(l.own.Addrs, func(a netip.Addr) bool { return inet.FamilyOf(a) == f })
		if !has || slices.ContainsFunc(s.NodePods, ofFamily) {
			continue
		}
		text := fmt.Sprintf("of IPv%d, so pods of this node are taken for clients from outside at Services with "+
			"externalTrafficPolicy Local", f)
		if !slices.ContainsFunc(s.ClusterPods, ofFamily) {
			text += ", and no connection to a cluster address is masqueraded but that of a pod to itself"
		}
		lost = append(lost, text)
	}
	if len(lost) == 0 {
		l.resolve(subject)
		return
	}
	l.problem(observe.Problem{Subject: subject, Text: "the Node has no spec.podCIDRs " + strings.Join(lost, "; "),
		Cure: "let the controller manager allocate the ranges (--allocate-node-cidrs); for the masquerading " +
			"--cluster-cidr is enough"})
}

// checkRanges says that a range of Services holds pods: what is sent to those is dropped, unless a Service has
// their address.
func (l *Loop) checkRanges() {
	const subject = "range of Services"
	s := l.settings
	for _, r := range s.ServiceRanges {
		for _, p := range slices.Concat(s.NodePods, s.ClusterPods) {
			if r.Overlaps(p) {
				l.problem(observe.Problem{Subject: subject, Text: fmt.Sprintf("%s holds addresses of pods, %s: "+
					"packets to them are dropped", r, p), Cure: "give the API server's own range by " +
					"--service-cluster-ip-range, and pods another one"})
				return
			}
		}
	}
	l.resolve(subject)
}

// checkSettled says that clients or connections of backends that went are left. Services are served all the
// same.
func (l *Loop) checkSettled(err error) {
	const subject = "connections of Services"
	if l.unsettled = err != nil; !l.unsettled {
		l.resolve(subject)
		return
	}
	l.problem(observe.Problem{Subject: subject, Text: "clients of endpoints that went are not led to others yet: " +
		err.Error(), Cure: "nothing, it is tried again; if it lasts, see whether the kernel has nf_conntrack_netlink"})
}

// checkAPIServer says that the agent reaches the API server by a Service that it serves itself: after a reboot
// it would wait for itself.
func (l *Loop) checkAPIServer(m *service.Model) {
	const subject = "way to the API server"
	at := l.APIServer
	if !at.IsValid() {
		return
	}
	front := program.Front{Addr: at.Addr(), Protocol: inet.TCP, Port: at.Port()}
	if _, ours := m.Program(inet.FamilyOf(at.Addr())).Route(front); ours {
		l.problem(observe.Problem{Subject: subject, Text: fmt.Sprintf("the agent reaches the API server at %s, "+
			"which is a Service that it serves itself: after a reboot of the node it cannot start", at),
			Cure: "give the API server's own address: --master, a kubeconfig, or the chart's api.host and api.port"})
		return
	}
	l.resolve(subject)
}

// checkPorts takes over the problems of health ports.
func (l *Loop) checkPorts() {
	var now []observe.Problem
	for _, p := range l.Health.Problems() {
		now = append(now, observe.Problem{Subject: p.Subject, Text: p.Text, Cure: p.Cure})
	}
	l.ports = l.replace(l.ports, now)
}

// lookAround takes over what is wrong with the settings and the routes of the node.
func (l *Loop) lookAround() {
	if l.Node == nil || l.model == nil {
		return
	}
	var addrs []netip.Addr
	for _, f := range inet.Families {
		last := netip.Addr{}
		for r := range l.model.Program(f).Routes.All() {
			if len(addrs) == maxAsked {
				break
			}
			if a := r.Front.Addr; a.IsValid() && a != last {
				addrs, last = append(addrs, a), a
			}
		}
	}
	l.found = l.replace(l.found, l.Node(addrs))
}

// maxAsked bounds the addresses of Services for which routes are looked for.
const maxAsked = 1000

// replace sets the problems, resolves those of former subjects, and returns the subjects.
func (l *Loop) replace(former []string, now []observe.Problem) (subjects []string) {
	for _, p := range now {
		l.problem(p)
		subjects = append(subjects, p.Subject)
	}
	for _, subject := range former {
		if !slices.Contains(subjects, subject) {
			l.resolve(subject)
		}
	}
	return subjects
}

// problem sets a problem, and logs it once.
func (l *Loop) problem(p observe.Problem) {
	if !l.known[p.Subject] {
		p.Log(l.Log)
	}
	if l.known == nil {
		l.known = map[string]bool{}
	}
	l.known[p.Subject] = true
	l.Observer.SetProblem(p)
}

// resolve clears the problem of a subject.
func (l *Loop) resolve(subject string) {
	if l.known[subject] {
		observe.LogResolved(l.Log, subject)
		l.Observer.ClearProblem(subject)
	}
	delete(l.known, subject)
}

// Forget clears the problems that the loop has set. It is for a loop that does not run any more.
func (l *Loop) Forget() {
	for subject := range l.known {
		l.Observer.ClearProblem(subject)
	}
}

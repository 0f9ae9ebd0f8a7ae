// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
)

// With nat chains the connection table keeps verdicts, so it is scanned after a change that may
// deny something. Denied connections are first refused in the reply direction (see ruleset) and
// then deleted.

// connections decides what happens to existing connections.
func (d *Decider) connections(out *Decision, w Wiring, c Connections) {
	out.Refuse, out.Admit = map[program.Refused]string{}, map[program.Refused]bool{}
	out.Scan, out.Recheck = cut.Scopes{}, cut.Scopes{}
	if c.Unreadable != nil {
		out.Problems = append(out.Problems, Problem{Subject: "connections", Blocking: !d.options.KeepConnections,
			Text: "connections that a change denies are not cut: the connection table cannot be read: " +
				c.Unreadable.Error(),
			Cure: "load nf_conntrack_netlink, or accept it with --on-policy-change=keep"})
		return
	}
	out.More = c.More
	if c.Read {
		out.Again = d.Adopt(c.Refused)
	}
	if c.Failed != nil {
		out.Problems = append(out.Problems, Problem{Subject: "connections", Blocking: !d.options.KeepConnections,
			Text: "connections that a change denies may go on: " + c.Failed.Error()})
	}
	p := out.Program
	if !d.options.KeepConnections {
		out.closed = closureOf(out.Node)
	}
	if len(c.Found) > 0 || d.judged != p || d.asked.program != p || !out.closed.equal(d.closed) || d.moved(c) {
		d.learn(out, c)
	}
	others := map[netip.Addr]bool{}
	if d.judged != p {
		others = d.compare(p, w, out)
	}
	if d.judged != p || d.asked.program != p {
		d.ask(p, c.Node, others, w.Now, out)
	}
	if closed := out.closed.beyond(d.closed, d.judged == p); len(closed) > 0 {
		out.Scan.Of(payerOf(p, closed)).Whole = true // the members of the groups are not known
	}
	d.free(w.Now, out)
	d.confirm(p, c.Found, out)
	d.bound(out)
	out.Node.Cut = len(d.refused)+len(out.Refuse)-len(out.Admit) > 0
}

// Fresh reports whether no decision is in force yet. Then the state that an earlier process left is
// used.
func (d *Decider) Fresh() bool { return d.judged == nil }

// Judges reports whether a decision is in force that End can use.
func (d *Decider) Judges() bool { return !d.Fresh() && d.judge != nil }

// End decides about connections only: it judges the result of a scan by the program in force, and
// ends connections in a commit of its own. It requires Judges.
func (d *Decider) End(now time.Time, c Connections) Decision {
	out := Decision{Program: d.judged, Node: d.wired, Judge: d.judge, closed: d.closed, More: c.More,
		Refuse: map[program.Refused]string{}, Admit: map[program.Refused]bool{}}
	if d.moved(c) {
		d.learn(&out, c)
	}
	d.free(now, &out)
	d.confirm(d.judged, c.Found, &out)
	d.bound(&out)
	out.Node.Cut = len(d.refused)+len(out.Refuse)-len(out.Admit) > 0
	return out
}

// moved reports whether the node's addresses differ from those by which connections are judged.
func (d *Decider) moved(c Connections) bool {
	return !slices.Equal(c.Node, d.basis.Node) || !slices.Equal(c.Broadcasts, d.basis.Groups.Broadcasts)
}

// learn makes the decision's program the one by which connections are judged.
func (d *Decider) learn(out *Decision, c Connections) {
	groups := cut.Groups{Closed: out.closed.pods, Broadcasts: c.Broadcasts}
	out.Learn = &Basis{Program: d.policed(out.Program), Node: c.Node, Groups: groups}
	out.Judge = cut.NewJudge(out.Learn.Program, c.Node, nil).WithGroups(groups)
}

// policed returns the program by which connections are judged.
func (d *Decider) policed(p *program.Program) *program.Program {
	if !d.options.KeepConnections {
		return p
	}
	open := &program.Program{Pods: slices.Clone(p.Pods)}
	for i := range open.Pods {
		open.Pods[i].Ingress, open.Pods[i].Egress = "", ""
	}
	return open
}

// compare decides what to scan after the program changed, and of which addresses the connections
// end before the commit. It returns the addresses for which nothing need be refused any more: they
// belong to another pod now, or to none.
func (d *Decider) compare(p *program.Program, w Wiring, out *Decision) map[netip.Addr]bool {
	before := d.judged
	if before == nil {
		if !d.options.KeepConnections {
			out.Scan.Of(cut.Payer{}).Whole = true // it is not known which entries were judged by which rules
		}
		before = &program.Program{Pods: d.before(p, w)}
	}
	change := cut.Compare(d.policed(before), d.policed(p))
	reused := change.Moved
	if !d.options.OpenUnknown {
		// Otherwise a pod has connections of its own before it is known.
		reused = slices.Concat(reused, change.Added)
	}
	scan(out, before, p, change)
	if !out.Held.Searching {
		out.Moved, out.Former = change.Moved, reused
	}
	others := map[netip.Addr]bool{}
	for _, a := range slices.Concat(reused, change.Left) {
		others[a] = true
	}
	return others
}

// scan adds the connections to scan because of a change, by payer.
func scan(out *Decision, before, now *program.Program, c cut.Change) {
	list := out.Scan
	for _, a := range c.Added {
		if payer := (cut.Payer{Tenant: tenant(now, a)}); out.Held.Empty[a] {
			s := out.Recheck.Of(payer)
			s.Touched[a], s.Round = true, 1
		} else {
			list.Of(payer).Touched[a] = true
		}
	}
	for _, a := range slices.Concat(c.Denied, c.Moved) {
		list.Of(cut.Payer{Tenant: tenant(now, a)}).Touched[a] = true
	}
	for _, a := range c.Shrunk {
		list.Of(cut.Payer{Tenant: tenant(now, a), Members: true}).Touched[a] = true
	}
	for _, a := range c.Left {
		of := tenant(before, a)
		list.Of(cut.Payer{Tenant: of}).Left[a] = of
	}
}

// payerOf returns the tenant of the first pod that is isolated for ingress, or the node.
func payerOf(p *program.Program, addrs []netip.Addr) cut.Payer {
	for _, a := range addrs {
		if pod, found := podAt(p, a); found && pod.Ingress != "" {
			return cut.Payer{Tenant: pod.Tenant}
		}
	}
	return cut.Payer{}
}

func tenant(p *program.Program, a netip.Addr) string {
	pod, _ := podAt(p, a)
	return pod.Tenant
}

// confirm judges the result of a scan again: the program may have changed since.
func (d *Decider) confirm(p *program.Program, found []cut.Cut, out *Decision) {
	type name struct {
		id   [4]byte
		orig inet.Tuple
	}
	seen := map[name]bool{}
	for _, f := range found {
		n := name{f.Entry.ID, f.Entry.Orig}
		if seen[n] {
			continue
		}
		seen[n] = true
		if f.Reason == cut.Reused {
			if !Owns(p, f.Addr) {
				f.Reason = cut.Gone // connections of the former owner were ended earlier
				out.End = append(out.End, f)
			}
			continue
		}
		if again, denied := out.Judge.Judge(&f.Entry); denied {
			out.End = append(out.End, again)
			d.refuse(again, out)
		}
	}
}

// refuse adds the packet that would revive a connection to the refused ones.
func (d *Decider) refuse(c cut.Cut, out *Decision) {
	if c.Revival.IsZero() {
		return
	}
	delete(out.Admit, c.Revival)
	if _, there := d.refused[c.Revival]; !there {
		out.Refuse[c.Revival] = c.Tenant
	}
}

// Committed records that a decision is in force.
func (d *Decider) Committed(out *Decision) {
	for r := range out.Admit {
		delete(d.refused, r)
	}
	for r, of := range out.Refuse {
		d.count++
		d.refused[r] = refusal{number: d.count, tenant: of}
	}
	d.judged, d.closed, d.wired = out.Program, out.closed, out.Node
	if out.Learn != nil {
		d.basis, d.judge = *out.Learn, out.Judge
	}
}

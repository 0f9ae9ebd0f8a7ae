// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/nft"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/decide"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// The last third of a pass: all effects of a decision, in the order of its fields. The comments of the
// fields give the reasons.

// commit applies a decision to the kernel. After an error the kernel is unchanged, or holds part of a very
// large change.
func (d *Datapath) commit(ctx context.Context, out decide.Decision, report *Report) error {
	d.lookAgain(out.CheckAgain)
	if out.Release {
		d.cuts.release.Reset(d.decider.Lenience)
	}
	report.take(out)
	report.add(d.settings.show(out.Bridges)...)
	out.Node.Restore = d.settings.saved()
	d.cuts.expect(out)
	if len(out.Former) > 0 {
		report.Cuts.Reused += d.cuts.clear(out.Former, denyingAll(out.Former, out.Learn.Node))
	}
	report.add(d.bindPorts(out.Node)...)
	if err := d.commitRules(ctx, out, report); err != nil {
		d.cuts.audit.giveBack(out.End)
		if !d.table.onlyRefused {
			d.cuts.arrivals.doubt() // the kernel's state is unknown
		}
		return err
	}
	d.inForce(out, report)
	if report.Drift > 0 && !d.options.KeepConnections { // unknown connections may have passed during the drift
		out.Scan.Of(cut.Payer{}).Whole = true
	}
	d.cuts.commit(out, report)
	return d.endAll(out, report)
}

// inForce notes that the kernel holds the rules of a decision.
func (d *Datapath) inForce(out decide.Decision, report *Report) {
	d.decider.Committed(&out)
	d.table.decide()
	if out.Learn != nil {
		d.cuts.audit.learn(*out.Learn)
	}
	report.Cuts.Refused = d.decider.CountRefused()
}

// Cut ends the connections that a scan found denied. It makes a commit of its own, using the program in
// force. It compiles and renders nothing but the rules that keep the connections from being revived. If the
// table is not as the last decision left it, or after an error, it requests an Apply, which ends the
// connections too.
func (d *Datapath) Cut(ctx context.Context) (Cuts, error) {
	if err := d.renew(); err != nil {
		return Cuts{}, err
	}
	t := &d.table
	if !t.known || t.actual == nil || t.actual != t.decided || d.opening.open || d.othersChanged() ||
		!d.decider.Judges() {
		d.awake()
		return Cuts{Refused: d.decider.CountRefused()}, nil
	}
	report := Report{}
	node, err := d.observeAddresses()
	if err == nil {
		err = d.commitCut(ctx, d.decider.End(d.now(), d.observeConnections(node, &report)), &report)
	}
	return report.Cuts, d.trust(err)
}

func (d *Datapath) commitCut(ctx context.Context, out decide.Decision, report *Report) error {
	wrote := d.table.wrote
	desired, ops := ruleset.WithCut(d.table.actual, out.Node)
	if err := d.write(ctx, desired, ruleset.JoinOps(ops, d.cutOps(out, ops))); err != nil {
		d.table.wrote = wrote // differences from it are drift by others, with few exceptions
		d.cuts.audit.giveBack(out.End)
		d.cuts.arrivals.doubt()
		return err
	}
	d.inForce(out, report)
	return d.endAll(out, report)
}

// endAll deletes the connections that a decision ends, and requests another Cut for the rest.
func (d *Datapath) endAll(out decide.Decision, report *Report) error {
	if out.Lost != nil {
		d.log.Warn("too many connections are cut: the replying ends of the oldest may revive them",
			"limit", decide.MaxRefused, "count", out.Lost.Count, "namespaces", out.Lost.Tenants)
	}
	if out.More {
		d.denied.Set()
	}
	return d.cuts.end(out.End, &report.Cuts)
}

// commitRules commits the rules and the sets of refused packets.
func (d *Datapath) commitRules(ctx context.Context, out decide.Decision, report *Report) error {
	t := &d.table
	desired, ops := t.render(out.Program, out.Node)
	if t.asRead && t.wrote != nil && len(ops) > 0 {
		// The desired table may have changed too, which is no drift.
		t.drift += len(nft.Diff(t.actual, t.wrote))
	}
	ops = ruleset.JoinOps(ops, d.cutOps(out, ops))
	report.Changes = len(ops)
	for _, op := range ops {
		report.Elements += op.Elements()
	}
	if err := d.write(ctx, desired, ops); err != nil {
		return err
	}
	report.Table = desired
	report.Drift, t.drift = t.drift, 0
	return nil
}

// cutOps returns the changes to the sets of refused packets that belong to the changes of the table.
func (d *Datapath) cutOps(out decide.Decision, table []nft.Op) []nft.Op {
	if !out.Node.Cut {
		return nil // the sets are deleted, or absent
	}
	add := slices.DeleteFunc(slices.Clone(out.Again), func(r program.Refused) bool { return out.Admit[r] })
	add = slices.AppendSeq(add, maps.Keys(out.Refuse))
	if len(table) > 0 && table[0].Kind <= nft.AddTable { // the whole table is written again
		for r := range d.decider.Refused() {
			if !out.Admit[r] {
				add = append(add, r)
			}
		}
		return ruleset.CutOps(add, nil)
	}
	return ruleset.CutOps(add, slices.Collect(maps.Keys(out.Admit)))
}

// bindPorts commits the bridge table that the wiring requires.
func (d *Datapath) bindPorts(n program.Node) []decide.Problem {
	if err := d.agree(ruleset.RenderBridge(n)); err != nil {
		return []decide.Problem{{Subject: "bridge ports", Blocking: d.options.Guard != decide.GuardOff,
			Text: "a pod can send as another pod of its bridge, and frames with several VLAN tags " +
				"reach isolated pods: " + err.Error(),
			Cure: "use a kernel with CONFIG_NF_TABLES_BRIDGE, or --invalid-guard=off to accept this"}}
	}
	return nil
}

// expect hands the known pods to arrivals: from now on their connections may be their own.
func (c *cuts) expect(out decide.Decision) {
	if c.conn != nil {
		c.arrivals.known.Store(out.Known)
	}
}

// commit runs after the rules are committed. It requests scans for connections that the change may have
// denied.
func (c *cuts) commit(out decide.Decision, report *Report) {
	if c.conn == nil {
		return
	}
	c.arrivals.arm()
	c.arrivals.hold(out.Held)
	c.audit.look(out.Scan, out.Recheck)
	report.Cuts.Reused += c.clear(out.Moved, out.Judge)
}

// clear deletes the connections of some addresses that the judge denies. It serves an Apply without a
// running Watch.
func (c *cuts) clear(addrs []netip.Addr, j *cut.Judge) (deleted int) {
	if len(addrs) == 0 {
		return 0
	}
	old, err := among(c.conn, addrs, j)
	if err == nil {
		deleted, err = c.conn.Delete(old)
	}
	if err != nil {
		c.log.Error("deleting connections of reused addresses failed", "err", err)
	}
	if deleted > 0 {
		c.log.Info("connections of reused addresses cut", "count", deleted)
	}
	return deleted
}

// end deletes connections and logs them: one line for connections denied by policies, debug level for the
// rest of deleted pods, since every deleted pod leaves some.
func (c *cuts) end(list []cut.Cut, sum *Cuts) error {
	if len(list) == 0 {
		return nil
	}
	entries, now := make([]inet.Connection, len(list)), Cuts{}
	var first *cut.Cut
	for i := range list {
		l := &list[i]
		if entries[i] = l.Entry; l.Entry.Finished {
			continue // the connection has ended already
		}
		now.add(l.Reason)
		if denied := l.Reason == cut.Ingress || l.Reason == cut.Egress; denied && first == nil {
			first = l
		}
		if i < maxLogged {
			c.log.Debug("connection cut", "flow", l.String(), "reason", l.Reason.String(), "pod", l.Pod,
				"chain", l.Chain)
		}
	}
	if first != nil {
		c.log.Info("connections cut that policies deny now", "ingress", now.Ingress, "egress", now.Egress,
			"first", first.String(), "reason", first.Reason.String(), "pod", first.Pod, "chain", first.Chain)
	}
	if now.Gone > 0 {
		c.log.Debug("connections of deleted pods ended", "count", now.Gone)
	}
	if _, err := c.conn.Delete(entries); err != nil {
		c.audit.giveBack(list)
		return err
	}
	sum.Ingress, sum.Egress = sum.Ingress+now.Ingress, sum.Egress+now.Egress
	sum.Reused, sum.Gone = sum.Reused+now.Reused, sum.Gone+now.Gone
	return nil
}

// add counts one connection.
func (c *Cuts) add(r cut.Reason) {
	switch r {
	case cut.Ingress:
		c.Ingress++
	case cut.Egress:
		c.Egress++
	case cut.Reused:
		c.Reused++
	case cut.Gone:
		c.Gone++
	}
}

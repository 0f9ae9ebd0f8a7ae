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

// The last third of a pass: every effect of a decision, in the order of its fields,
// whose comments say why.

// commit makes the kernel what a decision says. After an error it holds what it
// held, or part of a very large change.
func (d *Datapath) commit(ctx context.Context, out decide.Decision, report *Report) error {
	d.lookAgain(out.LookAgain)
	if out.Release {
		d.cuts.release.Reset(d.decider.Lenience)
	}
	report.take(out)
	report.add(d.settings.show(out.Bridges)...)
	out.Node.Restore = d.settings.saved()
	d.cuts.expect(out)
	if len(out.Former) > 0 {
		report.Cuts.Reused += d.cuts.clear(out.Former, strangers(out.Former, out.Learn.Node))
	}
	report.add(d.bindPorts(out.Node)...)
	if err := d.commitRules(ctx, out, report); err != nil {
		d.cuts.audit.giveBack(out.End)
		if !d.table.onlyRefused {
			d.cuts.arrivals.doubt() // nobody knows what the kernel holds
		}
		return err
	}
	d.inForce(out, report)
	if report.Drift > 0 && !d.options.KeepConnections { // nobody knows what was let through meanwhile
		out.Scan.Of(cut.Payer{}).Whole = true
	}
	d.cuts.commit(out, report)
	return d.endAll(out, report)
}

// inForce notes that the rules of a decision are in the kernel.
func (d *Datapath) inForce(out decide.Decision, report *Report) {
	d.decider.Committed(&out)
	d.table.decide()
	if out.Learn != nil {
		d.cuts.audit.learn(*out.Learn)
	}
	report.Cuts.Refused = d.decider.CountRefused()
}

// Cut ends the connections that a scan found denied: a commit of its own, by the
// program that is in force. Nothing is compiled, rendered or compared for it but what
// refuses that they are revived. Where that cannot be, since the table is not what
// the last decision made it, it asks for an Apply, which ends them too; so it does
// after an error.
func (d *Datapath) Cut(ctx context.Context) (Cuts, error) {
	if err := d.renew(); err != nil {
		return Cuts{}, err
	}
	t := &d.table
	if !t.known || t.actual == nil || t.actual != t.decided || d.opening.open || d.othersChanged() || !d.decider.Judges() {
		d.awake()
		return Cuts{Refused: d.decider.CountRefused()}, nil
	}
	report := Report{}
	node, err := observeAddresses()
	if err == nil {
		err = d.commitCut(ctx, d.decider.End(d.now(), d.observeConnections(node, &report)), &report)
	}
	return report.Cuts, d.trust(err)
}

func (d *Datapath) commitCut(ctx context.Context, out decide.Decision, report *Report) error {
	wrote := d.table.wrote
	desired, ops := ruleset.WithCut(d.table.actual, out.Node)
	if err := d.write(ctx, desired, ruleset.JoinOps(ops, d.cutOps(out, ops))); err != nil {
		d.table.wrote = wrote // what differs from it is others' doing, but for very little
		d.cuts.audit.giveBack(out.End)
		d.cuts.arrivals.doubt()
		return err
	}
	d.inForce(out, report)
	return d.endAll(out, report)
}

// endAll deletes what a decision ends, and asks for the rest.
func (d *Datapath) endAll(out decide.Decision, report *Report) error {
	if out.Lost != nil {
		d.log.Warn("too many connections are cut: the answering ends of the oldest may revive them",
			"limit", decide.MaxRefused, "count", out.Lost.Count, "namespaces", out.Lost.Tenants)
	}
	if out.More {
		d.denied.Set()
	}
	return d.cuts.end(out.End, &report.Cuts)
}

// commitRules commits the rules, with what is refused.
func (d *Datapath) commitRules(ctx context.Context, out decide.Decision, report *Report) error {
	t := &d.table
	desired, ops := t.render(out.Program, out.Node)
	if t.asRead && t.wrote != nil && len(ops) > 0 {
		// What is desired may have changed too, and that is nobody's fault.
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

// cutOps returns the changes of the sets of refused packets that go with those of
// the table.
func (d *Datapath) cutOps(out decide.Decision, table []nft.Op) []nft.Op {
	if !out.Node.Cut {
		return nil // the sets go, or are not there
	}
	add := slices.DeleteFunc(slices.Clone(out.Again), func(r program.Refused) bool { return out.Admit[r] })
	add = slices.AppendSeq(add, maps.Keys(out.Refuse))
	if len(table) > 0 && table[0].Kind <= nft.AddTable { // everything is made anew
		for r := range d.decider.Refused() {
			if !out.Admit[r] {
				add = append(add, r)
			}
		}
		return ruleset.CutOps(add, nil)
	}
	return ruleset.CutOps(add, slices.Collect(maps.Keys(out.Admit)))
}

// bindPorts makes the table of family bridge agree with the wiring.
func (d *Datapath) bindPorts(n program.Node) []decide.Problem {
	if err := d.agree(ruleset.RenderBridge(n)); err != nil {
		return []decide.Problem{{Subject: "bridge ports", Blocking: d.options.Guard != decide.GuardOff,
			Text: "a pod can pass as another pod of its bridge, and frames with several VLAN tags reach isolated pods: " + err.Error(),
			Cure: "use a kernel with CONFIG_NF_TABLES_BRIDGE, or --invalid-guard=off to accept this"}}
	}
	return nil
}

// expect tells who looks for connections from before a pod which pods are known from
// now on: their connections may be their own.
func (c *cuts) expect(out decide.Decision) {
	if c.conn != nil {
		c.arrivals.known.Store(out.Known)
	}
}

// commit follows the rules: it has the connections scanned that the change may have
// made denied ones.
func (c *cuts) commit(out decide.Decision, report *Report) {
	if c.conn == nil {
		return
	}
	c.arrivals.arm()
	c.arrivals.hold(out.Held)
	c.audit.look(out.Scan)
	report.Cuts.Reused += c.clear(out.Moved, out.Judge)
}

// clear deletes those of the connections of some addresses that the judge
// denies. It is for an Apply beside which no Watch runs.
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

// end deletes connections and says so: what policies deny by now in one line, what is
// left of pods that are gone at debug level only, since every pod that goes leaves some.
func (c *cuts) end(list []cut.Cut, sum *Cuts) error {
	if len(list) == 0 {
		return nil
	}
	entries, now := make([]inet.Connection, len(list)), Cuts{}
	var first *cut.Cut
	for i := range list {
		l := &list[i]
		if entries[i] = l.Entry; l.Entry.Finished {
			continue // nobody speaks there any more
		}
		now.add(l.Reason)
		if denied := l.Reason == cut.Ingress || l.Reason == cut.Egress; denied && first == nil {
			first = l
		}
		if i < maxLogged {
			c.log.Debug("connection cut", "flow", l.String(), "reason", l.Reason.String(), "pod", l.Pod, "chain", l.Chain)
		}
	}
	if first != nil {
		c.log.Info("connections cut that policies deny now", "ingress", now.Ingress, "egress", now.Egress,
			"first", first.String(), "reason", first.Reason.String(), "pod", first.Pod, "chain", first.Chain)
	}
	if now.Gone > 0 {
		c.log.Debug("connections of pods that are gone ended", "count", now.Gone)
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

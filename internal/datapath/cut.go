// SPDX-License-Identifier: Apache-2.0

//go:build linux

package datapath

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/kernel/conntrack"
	"github.com/podwall/podwall/internal/kernel/links"
	"github.com/podwall/podwall/internal/netpol/cut"
	"github.com/podwall/podwall/internal/netpol/program"
	"github.com/podwall/podwall/internal/netpol/ruleset"
)

// cuts ends connections that exist and must not. Where a nat chain judges, the
// connection table is the memory of verdicts, so after a change that can deny
// something the table is judged (audit.go). What is denied is first refused in
// the answering direction (the cut sets of package ruleset) and then deleted. It is
// used by the goroutine of Apply, except for the audit.
type cuts struct {
	log      *slog.Logger
	keep     bool            // connections that a change denies go on
	conn     *conntrack.Conn // nil if the kernel has no such interface
	why      error           // then
	audit    audit
	arrivals *arrivals // nil if connections cannot be read

	judged  *program.Program // the program up to which connections are judged
	closed  closure          // and what was closed for groups then
	refused map[program.Refused]refusal
	asked   asked // what they were judged by
	count   uint64
	swept   time.Time
	lenient time.Duration // see lenience
	release *time.Timer   // for those that are allowed again
}

const (
	// maxCuts bounds how many connections one Apply cuts; the next takes the rest.
	maxCuts = 4096
	// maxLogged is how many connections of one Apply are named in the log.
	maxLogged = 10
)

// Cuts says which connections an Apply ended.
type Cuts struct {
	Ingress, Egress, Reused int
	// Refused is how many packets the sets hold that would revive them.
	Refused int
	Looked  Looked
}

func (c *cuts) open(o Options, log *slog.Logger, wake func()) {
	c.log, c.keep, c.refused, c.lenient = log, o.KeepConnections, map[program.Refused]refusal{}, lenience
	c.release = time.AfterFunc(time.Hour, wake)
	c.release.Stop()
	c.audit.init(log, wake)
	var conns [3]*conntrack.Conn
	for i := range conns {
		if conns[i], c.why = conntrack.Open(); c.why != nil {
			break
		}
	}
	if c.why == nil {
		_, _, c.why = conns[0].Count()
	}
	if c.why != nil {
		_ = closeAll(conns[:]...) // of no use
		return
	}
	c.conn, c.audit.conn = conns[0], conns[1]
	c.arrivals = newArrivals(conns[2], log, !o.OpenUnknown, wake)
}

func (c *cuts) close() error {
	c.release.Stop()
	if c.conn == nil {
		return nil
	}
	return closeAll(c.conn, c.audit.conn, c.arrivals.conn)
}

func closeAll(conns ...*conntrack.Conn) error {
	var errs []error
	for _, c := range conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// plan is what one Apply does about connections.
type plan struct {
	judge   *cut.Judge
	node    []netip.Addr
	closed  closure
	groups  cut.Groups                 // the same for the judge
	scopes  scopes                     // to look at afterwards
	cuts    []cut.Cut                  // to be deleted
	add     map[program.Refused]string // by whose pod
	remove  map[program.Refused]bool
	again   []program.Refused // somebody took them out of the sets
	cutting bool              // the sets hold something
	held    held
	former  []netip.Addr // addresses whose connections are a former owner's, and end before the commit
	moved   []netip.Addr // addresses that went from one pod to another, to look for after the commit
	reused  int          // connections of reused addresses, deleted already
	looked  Looked
}

// plan prepares what is committed with the program. It changes nothing in the kernel.
func (d *Datapath) plan(p *program.Program, n program.Node, h held, report *Report) (*plan, error) {
	c := &d.cuts
	todo := &plan{held: h, add: map[program.Refused]string{}, remove: map[program.Refused]bool{}, scopes: scopes{}}
	if c.conn == nil {
		report.Problems = append(report.Problems, Problem{Subject: "connections", Blocking: !c.keep,
			Text: "connections that a change denies are not cut: the connection table cannot be read: " + c.why.Error(),
			Cure: "load nf_conntrack_netlink, or accept it with --on-policy-change=keep"})
		return todo, nil
	}
	if report.Full && d.actual != nil {
		c.adopt(ruleset.Refusals(d.actual), todo)
	}
	var found []cut.Cut
	found, todo.looked = c.audit.take(maxCuts)
	if todo.looked.Err != nil {
		report.Problems = append(report.Problems, Problem{Subject: "connections", Blocking: !c.keep,
			Text: "connections that a change denies may go on: " + todo.looked.Err.Error()})
	}
	if !c.keep {
		todo.closed = closureOf(n)
	}
	if len(found) > 0 || c.judged != p || c.asked.program != p || !todo.closed.equal(c.closed) {
		if err := todo.ask(c.policed(p)); err != nil {
			c.audit.giveBack(found)
			return nil, err
		}
	}
	c.arrivals.known.Store(h.known) // what these take part in from now on may be their own
	others := map[netip.Addr]bool{}
	if c.judged != p {
		others = d.compare(p, todo)
	}
	if c.judged != p || c.asked.program != p {
		c.ask(p, others, todo)
	}
	if closed := todo.closed.beyond(c.closed, c.judged == p); len(closed) > 0 {
		todo.scopes.of(payerOf(p, closed)).whole = true // nobody knows the groups' names
	}
	c.free(time.Now(), todo)
	c.confirm(p, found, todo)
	c.bound(todo)
	todo.cutting = len(c.refused)+len(todo.add)-len(todo.remove) > 0
	return todo, nil
}

// ask makes the judge of the program.
func (todo *plan) ask(p *program.Program) error {
	node, broadcasts, err := links.Addresses()
	if err != nil {
		return err
	}
	todo.node, todo.groups = node, cut.Groups{Closed: todo.closed.pods, Broadcasts: broadcasts}
	todo.judge = cut.NewJudge(p, node, nil).WithGroups(todo.groups)
	return nil
}

// policed returns the program that connections are judged by.
func (c *cuts) policed(p *program.Program) *program.Program {
	if !c.keep {
		return p
	}
	open := &program.Program{Pods: slices.Clone(p.Pods)}
	for i := range open.Pods {
		open.Pods[i].Ingress, open.Pods[i].Egress = "", ""
	}
	return open
}

// compare finds out what to look at after the program changed, and the connections
// of which addresses end before the commit. It returns the addresses of which nothing need
// be refused any more: another pod has them, or none.
func (d *Datapath) compare(p *program.Program, todo *plan) map[netip.Addr]bool {
	c, before := &d.cuts, d.cuts.judged
	if before == nil {
		if !c.keep {
			todo.scopes.of(payer{}).whole = true // nobody knows what was judged by what
		}
		before = &program.Program{Pods: ruleset.LocalPods(d.actual, p)}
	}
	change := cut.Compare(c.policed(before), c.policed(p))
	reused := change.Moved
	if !d.options.OpenUnknown {
		// Else a pod has connections of its own before it is known.
		reused = slices.Concat(reused, change.Came)
	}
	todo.look(before, p, change)
	if todo.reused = c.arrivals.ended(); !todo.held.beside {
		todo.moved, todo.former = change.Moved, reused
	}
	others := map[netip.Addr]bool{}
	for _, a := range slices.Concat(reused, change.Left) {
		others[a] = true
	}
	return others
}

// endReused deletes, where nobody looks beside the loop, the connections of
// addresses that have a new owner.
func (c *cuts) endReused(todo *plan) {
	if len(todo.former) == 0 {
		return
	}
	todo.reused += c.clear(todo.former, cut.NewJudge(&program.Program{}, todo.node, todo.former))
}

// look notes which connections a change asks to look at, and who pays for it.
func (todo *plan) look(before, now *program.Program, c cut.Change) {
	for _, a := range slices.Concat(c.Denied, c.Came, c.Moved) {
		todo.scopes.of(payer{tenant: tenant(now, a)}).touched[a] = true
	}
	for _, a := range c.Shrunk {
		todo.scopes.of(payer{tenant: tenant(now, a), members: true}).touched[a] = true
	}
	for _, a := range c.Left {
		of := tenant(before, a)
		todo.scopes.of(payer{tenant: of}).left[a] = of
	}
}

// payerOf returns who isolated the first of the pods that is isolated for ingress,
// or the node.
func payerOf(p *program.Program, addrs []netip.Addr) payer {
	for _, a := range addrs {
		if pod, found := podAt(p, a); found && pod.Ingress != "" {
			return payer{tenant: pod.Tenant}
		}
	}
	return payer{}
}

func tenant(p *program.Program, a netip.Addr) string {
	pod, _ := podAt(p, a)
	return pod.Tenant
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

// confirm asks again about what the audit found: the program may have changed
// since.
func (c *cuts) confirm(p *program.Program, found []cut.Cut, todo *plan) {
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
			if !owned(p, f.Addr) {
				todo.cuts = append(todo.cuts, f)
			}
			continue
		}
		again, denied := todo.judge.Judge(&f.Entry)
		if !denied {
			continue
		}
		todo.cuts = append(todo.cuts, again)
		if !again.Revival.IsZero() {
			r := again.Revival
			todo.add[r] = again.Tenant
			delete(todo.remove, r)
		}
	}
	for r := range todo.add {
		if _, there := c.refused[r]; there {
			delete(todo.add, r)
		}
	}
}

func owned(p *program.Program, a netip.Addr) bool {
	_, found := podAt(p, a)
	return found
}

func podAt(p *program.Program, a netip.Addr) (pod program.Pod, found bool) {
	i, found := slices.BinarySearchFunc(p.Pods, a, func(e program.Pod, a netip.Addr) int { return e.Addr.Compare(a) })
	if found {
		pod = p.Pods[i]
	}
	return pod, found
}

// finish follows a commit: it deletes what must end, and has the connections
// looked at that the change may have made denied ones.
func (d *Datapath) finish(p *program.Program, todo *plan, report *Report) error {
	c := &d.cuts
	if c.conn == nil {
		return nil
	}
	c.settle(todo)
	c.judged, c.closed = p, todo.closed
	c.arrivals.arm()
	c.arrivals.hold(todo.held)
	if todo.judge != nil {
		c.audit.learn(c.policed(p), todo.node, todo.groups)
	}
	if report.Drift > 0 && !c.keep { // nobody knows what was let through meanwhile
		todo.scopes.of(payer{}).whole = true
	}
	c.audit.look(todo.scopes)
	// What came since, the rules for the former owner let through.
	todo.reused += c.clear(todo.moved, todo.judge)
	report.Cuts = Cuts{Refused: len(c.refused), Reused: todo.reused, Looked: todo.looked}
	if len(todo.cuts) == maxCuts {
		d.events.awake() // there may be more
	}
	return c.end(todo.cuts, &report.Cuts)
}

// end deletes connections and says so.
func (c *cuts) end(list []cut.Cut, sum *Cuts) error {
	if len(list) == 0 {
		return nil
	}
	entries := make([]inet.Connection, len(list))
	for i, l := range list {
		entries[i] = l.Entry
		switch l.Reason {
		case cut.Ingress:
			sum.Ingress++
		case cut.Egress:
			sum.Egress++
		default:
			sum.Reused++
		}
		if i < maxLogged {
			c.log.Info("connection cut", "flow", l.String(), "reason", l.Reason.String(), "pod", l.Pod, "chain", l.Chain)
		}
	}
	if more := len(list) - maxLogged; more > 0 {
		c.log.Info("more connections cut", "count", more)
	}
	if _, err := c.conn.Delete(entries); err != nil {
		c.audit.giveBack(list)
		return err
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

// Package compile turns the meaning of the policies (policy.Model) into the conditions on packets
// (program.Program). It is pure, and it is one of the two places that decide what fails closed; the
// other is datapath.
//
// It decides which pods share a chain, how peers and ports become sets or literals, and the names
// of chains and sets. Names are derived from content, so that equal parts are shared and a changed
// chain is a new chain.
package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

// Options are the operator's choices that change a program.
type Options struct {
	// ClosedIPv4 and ClosedIPv6 close a family: isolated pods get no traffic of it except from the
	// node. No option opens a family.
	ClosedIPv4, ClosedIPv6 bool
}

func (o Options) closed(f inet.Family) bool {
	return f == inet.IPv4 && o.ClosedIPv4 || f == inet.IPv6 && o.ClosedIPv6
}

// Program compiles a model.
func Program(m *policy.Model, o Options) *program.Program {
	return NewLayout(m.Layout, o).Program(m.Sets)
}

// Layout is the compiled part of a program that does not depend on the members of sets. It stays
// the same as long as the layout of the model does.
type Layout struct {
	pods   []program.Pod
	chains []*program.Chain
	sets   []*setRef
	// Diagnostics are about rules that have no room.
	Diagnostics []cluster.Diagnostic
	// Work is the number of new rules and ranges in this layout, by namespace. They must be written
	// to the kernel.
	Work map[string]int
}

// setRef is a set of the program. spec is nil for sets whose elements are written in a policy and
// so are already known.
type setRef struct {
	key  policy.SetKey
	spec *policy.SetSpec
	set  program.Set
}

// NewLayout compiles the layout of a model.
func NewLayout(l *policy.Layout, o Options) *Layout { return NewCompiler(o).Layout(l) }

// Compiler compiles one layout after another. Unchanged parts are the same value in both: policies
// and chains are compiled once. It is owned by one goroutine.
type Compiler struct {
	options  Options
	known    memory // of the last layout
	policies map[policyKey]*compiled
}

// memory holds everything compiled for a layout.
type memory struct {
	chains map[chainKey]*chain
	lists  map[listKey]*chain
}

func newMemory() memory { return memory{chains: map[chainKey]*chain{}, lists: map[listKey]*chain{}} }

// NewCompiler returns a compiler without a previous layout.
func NewCompiler(o Options) *Compiler {
	return &Compiler{options: o, known: newMemory(), policies: map[policyKey]*compiled{}}
}

// forget drops the policies that no chain of the layout uses.
func (c *Compiler) forget() {
	used := map[policyKey]bool{}
	for key, chain := range c.known.chains {
		for _, p := range chain.policies {
			used[policyKey{p, key.family, key.direction}] = true
		}
	}
	maps.DeleteFunc(c.policies, func(k policyKey, _ *compiled) bool { return !used[k] })
}

// Layout compiles a layout.
func (c *Compiler) Layout(l *policy.Layout) *Layout {
	b := &builder{options: c.options, before: c.known, memory: newMemory(), policies: c.policies,
		chains: map[string]*program.Chain{}, sets: map[string]*setRef{}, budget: newBudget()}
	for _, e := range byAddress(l.Workloads) {
		b.pods = append(b.pods, b.pod(e))
	}
	spent := work(c.known, b.memory)
	if c.known = b.memory; b.fresh {
		c.forget()
	}
	return &Layout{
		pods:        b.pods,
		chains:      sortedValues(b.chains, func(c *program.Chain) string { return c.Name }),
		sets:        sortedValues(b.sets, func(r *setRef) string { return r.set.Name }),
		Diagnostics: b.budget.diagnostics(),
		Work:        spent,
	}
}

// Program fills the layout's sets with their members.
func (l *Layout) Program(members map[policy.SetKey]policy.Members) *program.Program {
	p := &program.Program{Pods: l.pods, Chains: l.chains, Sets: make([]*program.Set, len(l.sets))}
	for i, r := range l.sets {
		s := r.set
		if r.spec != nil {
			s.Elements = members[r.key].Of(s.Family)
		}
		p.Sets[i] = &s
	}
	return p
}

// entry is one address and the local pods that claim it.
type entry struct {
	addr      netip.Addr
	workloads []*policy.Workload
}

// byAddress sorts the addresses of the workloads. If several pods claim an address, those that are
// being deleted are ignored when another one is not.
func byAddress(list []policy.Workload) []entry {
	at := map[netip.Addr]*entry{}
	for i := range list {
		w := &list[i]
		for _, a := range w.Pod.IPs {
			if at[a] == nil {
				at[a] = &entry{addr: a}
			}
			at[a].workloads = append(at[a].workloads, w)
		}
	}
	entries := make([]entry, 0, len(at))
	for _, e := range at {
		staying := slices.DeleteFunc(slices.Clone(e.workloads),
			func(w *policy.Workload) bool { return w.Pod.Terminating })
		if len(staying) > 0 {
			e.workloads = staying
		}
		entries = append(entries, *e)
	}
	slices.SortFunc(entries, func(a, b entry) int { return a.addr.Compare(b.addr) })
	return entries
}

// builder collects the chains and sets of one layout.
type builder struct {
	options  Options
	before   memory // of the previous layout
	memory   memory // of this one
	policies map[policyKey]*compiled
	fresh    bool // policies were compiled
	pods     []program.Pod
	chains   map[string]*program.Chain
	sets     map[string]*setRef
	budget   budget
}

func (b *builder) pod(e entry) program.Pod {
	key := e.workloads[0].Pod.Key
	p := program.Pod{Addr: e.addr, Name: key.String(), ID: e.workloads[0].Pod.UID, Tenant: key.Namespace}
	family := inet.FamilyOf(e.addr)
	p.Ingress = b.isolation(e, family, program.Ingress)
	p.Egress = b.isolation(e, family, program.Egress)
	p.AuditIngress = b.audit(e, family, program.Ingress, p.Ingress)
	p.AuditEgress = b.audit(e, family, program.Egress, p.Egress)
	return p
}

// audit returns the chain that says what policies in audit mode would drop in one direction, or "" if
// there are none or if another chain judges it. Of an address that several pods claim nobody knows
// whose policies would count.
func (b *builder) audit(e entry, f inet.Family, d program.Direction, judges string) string {
	of := auditOf(e.workloads[0], d)
	switch {
	case judges != "", len(e.workloads) > 1, !of.Isolated:
		return ""
	case b.options.closed(f):
		return b.chain(f, d, nil)
	}
	return b.chain(f, d, of.Policies)
}

func auditOf(w *policy.Workload, d program.Direction) policy.Isolation {
	if d == program.Egress {
		return w.AuditEgress
	}
	return w.AuditIngress
}

// isolation returns the chain for one direction, or "" if the pod is not isolated.
func (b *builder) isolation(e entry, f inet.Family, d program.Direction) string {
	isolated := slices.ContainsFunc(e.workloads, func(w *policy.Workload) bool { return isolationOf(w, d).Isolated })
	switch {
	case !isolated:
		return ""
	case len(e.workloads) > 1:
		// Two live pods claim one address and at least one is isolated. It is unknown whose packets
		// these are: closed.
		return b.chain(f, d, nil)
	case b.options.closed(f):
		return b.chain(f, d, nil)
	}
	return b.chain(f, d, isolationOf(e.workloads[0], d).Policies)
}

func isolationOf(w *policy.Workload, d program.Direction) policy.Isolation {
	if d == program.Egress {
		return w.Egress
	}
	return w.Ingress
}

func sortedValues[T any](m map[string]T, name func(T) string) []T {
	list := make([]T, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
	return list
}

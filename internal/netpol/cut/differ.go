// SPDX-License-Identifier: Apache-2.0

package cut

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/podwall/podwall/internal/netpol/program"
)

// Differing returns the addresses for which two programs may give different verdicts. For a
// connection between two other addresses both give the same. Refused connections of these addresses
// are judged again.
func Differing(before, now *program.Program) map[netip.Addr]bool {
	found := map[netip.Addr]bool{}
	d := differing{before: before, now: now, chains: map[string]bool{}, sets: map[string]bool{}}
	eachPod(before.Pods, now.Pods, func(was, is *program.Pod) {
		switch {
		case is == nil:
			found[was.Addr] = true
		case was == nil, was.Name != is.Name, was.ID != is.ID, was.Tenant != is.Tenant,
			d.chain(was.Ingress, is.Ingress), d.chain(was.Egress, is.Egress):
			found[is.Addr] = true
		}
	})
	return found
}

// differing finds chains and sets that differ, and compares each once.
type differing struct {
	before, now  *program.Program
	chains, sets map[string]bool // by name
}

func (d *differing) chain(before, now string) bool {
	if before != now || now == "" {
		return before != now
	}
	found, known := d.chains[now]
	if !known {
		a, b := d.before.Chain(now), d.now.Chain(now)
		found = a == nil || b == nil || a != b && !reflect.DeepEqual(a, b) || slices.ContainsFunc(setsOf(b), d.set)
		d.chains[now] = found
	}
	return found
}

func (d *differing) set(name string) bool {
	found, known := d.sets[name]
	if !known {
		a, b := d.before.Set(name), d.now.Set(name)
		if found = a == nil || b == nil; !found && a != b {
			added, removed := b.Elements.Diff(a.Elements)
			found = len(added)+len(removed) > 0
		}
		d.sets[name] = found
	}
	return found
}

// SPDX-License-Identifier: Apache-2.0

package service

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/proxy/program"
)

// input is everything that the part of one Service in the programs is a function of. It is
// immutable.
type input struct {
	env     *environment
	service *cluster.Service
	slices  []*cluster.EndpointSlice
	won     []claim // the claims that no older Service has
	left    bool    // the budget of the namespace has no room for it
}

// fragment is the part of one Service in the programs: for each front its route and its slots, in the
// order of the claims.
type fragment struct {
	fronts []answered
	// addresses are the cluster addresses, loops the own backends: sorted, without duplicates.
	addresses, loops []netip.Addr
	admissions       []admission // of the routes, without duplicates
	health           *Health
	found            []cluster.Diagnostic
}

// admission is an admission of a family.
type admission struct {
	family inet.Family
	program.Admission
}

// answered is a front and how it is answered.
type answered struct {
	family inet.Family
	route  program.Route
	slots  []program.Slot
}

// fragment computes the part.
func (in *input) fragment() fragment {
	var out fragment
	if in == nil {
		return out
	}
	s := in.service
	out.addresses = slices.Compact(slices.SortedFunc(slices.Values(s.ClusterIPs), netip.Addr.Compare))
	out.addresses = slices.DeleteFunc(out.addresses, in.env.own) // other ports of it are the node's
	sets := map[place][]endpoint{}
	full := map[int32]bool{} // ports with too many endpoints
	slots := 0
	for _, c := range in.won {
		at := place{c.port, c.family()}
		all, known := sets[at]
		if !known {
			all = in.env.endpoints(in.slices, s.Ports[c.port], c.family())
			choose(all)
			sets[at] = all
		}
		a, count := in.answer(c, all)
		if count > program.MaxSlots && !full[c.port] {
			full[c.port] = true
			out.found = append(out.found, tooMany(s, c.port, count))
		}
		if slots += len(a.slots); slots > MaxServiceSlots {
			out.found = append(out.found, tooLarge(s, c))
			break
		}
		out.fronts = append(out.fronts, a)
		if a := in.admission(c); a != nil {
			out.admit(admission{c.family(), *a})
		}
		in.loop(&out, c, all)
	}
	if !in.env.IPVS {
		out.found = append(out.found, unscheduled(s)...)
	}
	slices.SortFunc(out.loops, netip.Addr.Compare)
	out.loops = slices.Compact(out.loops)
	if x := s.External; x != nil && x.Local && x.HealthPort != 0 {
		out.health = &Health{Port: x.HealthPort, Service: s.Key}
		if !in.left {
			out.health.Ready = in.env.ready(in.slices)
		}
	}
	return out
}

// place is a port of a Service in one family.
type place struct {
	port   int32
	family inet.Family
}

func tooMany(s *cluster.Service, port int32, count int) cluster.Diagnostic {
	return cluster.Diagnostic{Severity: cluster.Error, Kind: kindService, Object: s.Key,
		Field: fmt.Sprintf("spec.ports[%d]", port),
		Message: fmt.Sprintf("the port has %d endpoints, more than %d: the others get no connections", count,
			program.MaxSlots),
		Cure: "use several Services"}
}

// schedule returns how IPVS chooses among the backends of a front.
func (in *input) schedule() program.Schedule {
	if !in.env.IPVS {
		return program.Schedule{}
	}
	scheduler, _ := program.ParseScheduler(in.service.Scheduler) // an unknown one has a finding already
	return program.Schedule{Scheduler: scheduler, Options: program.Options(in.service.SchedulerOptions)}
}

// unscheduled returns what a Service asks for that only IPVS does.
func unscheduled(s *cluster.Service) (found []cluster.Diagnostic) {
	say := func(severity cluster.Severity, name, message string) {
		found = append(found, cluster.Diagnostic{Severity: severity, Kind: kindService, Object: s.Key,
			Field: "metadata.annotations[kube-router.io/service." + name + "]", Message: message,
			Cure: "remove it, or run the agents with --service-proxy-backend=ipvs; for the same endpoint each time " +
				"use sessionAffinity: ClientIP"})
	}
	if name := s.Scheduler; name != "" && name != program.RoundRobin.String() {
		say(cluster.Error, "scheduler", fmt.Sprintf("the scheduler %q is not served: each connection gets an "+
			"endpoint at random", name))
	}
	if s.SchedulerOptions != 0 {
		say(cluster.Warning, "schedflags", "flags of schedulers have no effect: each connection gets an endpoint at "+
			"random")
	}
	return found
}

// uses says which of the two sets of endpoints a front needs.
func (in *input) uses(c claim) (local, everywhere bool) {
	if c.kind == clusterAddress {
		return in.service.InternalLocal, !in.service.InternalLocal
	}
	return in.service.External.Local, true
}

// answer says how a front is answered. count is the number of its backends, of which the slots hold
// program.MaxSlots at most.
func (in *input) answer(c claim, all []endpoint) (a answered, count int) {
	s, f := in.service, c.programFront()
	local, everywhere := in.uses(c)
	list, n := order(f, all, local, everywhere)
	count = len(list)
	list = list[:min(count, program.MaxSlots)]
	a = answered{family: c.family(), route: program.Route{Front: f, Sticky: program.Seconds(s.Affinity)}}
	a.slots = make([]program.Slot, 0, len(list))
	for i, x := range list {
		a.slots = append(a.slots, program.Slot{Front: f, Number: uint16(i), Sticky: a.route.Sticky, Backend: x.Backend})
	}
	a.route.Schedule = in.schedule()
	none := program.Reject
	if slices.ContainsFunc(all, func(x endpoint) bool { return x.everywhere }) {
		none = program.Drop
	}
	pick := func(first, size int, m program.Masquerade) program.Pick {
		if size = min(size, len(list)-first); size <= 0 {
			return program.Pick{Otherwise: none}
		}
		return program.Pick{First: uint16(first), Count: uint16(size), Masquerade: m}
	}
	localSet := func(m program.Masquerade) program.Pick { return pick(0, n[0]+n[1], m) }
	clusterSet := func(m program.Masquerade) program.Pick { return pick(n[0], n[1]+n[2], m) }
	switch {
	case c.kind == clusterAddress && local:
		a.route.Inside = localSet(in.env.strangers(c.family()))
		a.route.Outside = a.route.Inside
	case c.kind == clusterAddress:
		a.route.Inside = clusterSet(in.env.strangers(c.family()))
		a.route.Outside = a.route.Inside
	case local:
		a.route.Inside, a.route.Outside = clusterSet(program.Strangers), localSet(program.Never)
	default:
		a.route.Inside = clusterSet(program.Always)
		a.route.Outside = a.route.Inside
	}
	if adm := in.admission(c); adm != nil {
		a.route.Admission = adm.Name
	}
	return a, count
}

// strangers says whose connections to cluster addresses are masqueraded.
func (e *environment) strangers(f inet.Family) program.Masquerade {
	switch {
	case e.MasqueradeAll:
		return program.Always
	case len(ofFamily(e.ClusterPods, f)) == 0:
		return program.Never
	}
	return program.Strangers
}

// admission returns who may connect to the front; nil for everybody. A range that holds the node's
// address also admits the address of the load balancer itself: on a node that has it, connections to
// it come from it.
func (in *input) admission(c claim) *program.Admission {
	x := in.service.External
	if c.kind != loadBalancer || !x.Restricted {
		return nil
	}
	ranges := ofFamily(x.SourceRanges, c.family())
	if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		return nil
	}
	if node := in.env.primary[index(c.family())]; node.IsValid() && contains(ranges, node) {
		ranges = append(ranges, netip.PrefixFrom(c.front.Addr, c.front.Addr.BitLen()))
	}
	ranges = disjoint(ranges)
	return &program.Admission{Name: nameOf(ranges), Ranges: ranges}
}

// disjoint returns the ranges sorted, without those within another.
func disjoint(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	var kept []netip.Prefix
	for _, p := range list {
		// A range that holds p is before it, and nothing is between them that p's range does not hold.
		if n := len(kept); n == 0 || !kept[n-1].Overlaps(p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// nameLength is the number of base32 characters of a name: 60 bits.
const nameLength = 12

// nameOf derives a name from ranges.
func nameOf(ranges []netip.Prefix) string {
	h := sha256.New()
	for _, p := range ranges {
		h.Write([]byte(p.String() + "\n"))
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)))[:nameLength]
}

// admit adds an admission.
func (out *fragment) admit(a admission) {
	same := func(o admission) bool { return o.family == a.family && o.Name == a.Name }
	if !slices.ContainsFunc(out.admissions, same) {
		out.admissions = append(out.admissions, a)
	}
}

// loop adds the endpoints on this node that a front uses: those whose slice says so, and those with the
// address of a pod of this node. A slice that somebody wrote by hand may not name nodes.
func (in *input) loop(out *fragment, c claim, all []endpoint) {
	local, everywhere := in.uses(c)
	for _, x := range all {
		used := local && x.local || everywhere && x.everywhere
		if used && (x.own || contains(in.env.NodePods, x.Addr)) {
			out.loops = append(out.loops, x.Addr)
		}
	}
}

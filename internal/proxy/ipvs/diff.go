// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"slices"

	"github.com/podwall/podwall/internal/kernel/ipvs"
	"github.com/podwall/podwall/internal/proxy/program"
)

// Changes lead from the virtual services of the kernel to those of a plan.
type Changes struct {
	// Before are done before the tables lead to IPVS, Late when they do, and After when they no longer lead to
	// what is deleted. In this order, a virtual service that has destinations before and after always has some.
	// One that only some clients may use has none while the tables do not keep out the others.
	Before, Late, After []ipvs.Op
	// Draining are virtual services with destinations that get no new connections, and go when those that
	// they have ended. They must be looked at again.
	Draining []ipvs.ID
	// Taken are IDs at which another program has a virtual service. It stays.
	Taken []ipvs.ID
}

// Keep reports whether a destination that the plan does not have may serve the connections that it has to
// their end, as that of a terminating pod.
type Keep func(ipvs.ID, ipvs.Backend) bool

// weight is that of every destination that gets connections.
const weight = 1

// Diff returns the changes at some IDs. Nothing that is not Own is changed.
func Diff(actual map[ipvs.ID]ipvs.Listed, want map[ipvs.ID]Virtual, at []ipvs.ID, keep Keep) (c Changes) {
	for _, id := range at {
		is, there := actual[id]
		v, wanted := want[id]
		switch {
		case there && !Own(is.Service):
			if wanted {
				c.Taken = append(c.Taken, id)
			}
		case wanted:
			c.serve(id, is, v, there, keep)
		case there:
			// Its destinations go first: the tables may still keep clients from it that they let pass then.
			if !c.change(id, is.Destinations, nil, keep, false) {
				c.After = append(c.After, ipvs.Op{Kind: ipvs.DeleteService, Service: ipvs.Service{ID: id}})
			}
		}
	}
	return c
}

// serve brings a virtual service to one that is wanted.
func (c *Changes) serve(id ipvs.ID, is ipvs.Listed, v Virtual, there bool, keep Keep) {
	cut := cuts(v.Service)
	edit := func() {
		if there && is.Service != v.Service {
			c.Before = append(c.Before, ipvs.Op{Kind: ipvs.EditService, Service: v.Service})
		}
	}
	if !there {
		c.Before = append(c.Before, ipvs.Op{Kind: ipvs.AddService, Service: v.Service})
	}
	if cut {
		keep = nil
	} else {
		edit()
	}
	late := v.Restricted && !slices.ContainsFunc(is.Destinations, func(h ipvs.Held) bool { return h.Weight > 0 })
	c.change(id, is.Destinations, v.Backends, keep, late)
	if cut {
		edit() // when no destination is left at which it would refuse clients
	}
}

// cuts reports whether nothing may drain under the scheduler of a virtual service: dh gives clients to
// destinations of weight 0, too, and refuses them then.
func cuts(s ipvs.Service) bool { return s.Scheduler == program.DestinationHash.String() }

// lasts reports whether a destination that is not wanted has connections to serve.
func lasts(id ipvs.ID, h ipvs.Held, keep Keep) bool {
	return h.Connections() > 0 && keep != nil && keep(id, h.Backend)
}

// change brings the destinations of a virtual service to those that are wanted: new ones come first, or late.
// Both lists are sorted. It reports whether some drain.
func (c *Changes) change(id ipvs.ID, actual []ipvs.Held, want []ipvs.Backend, keep Keep, late bool) (drains bool) {
	op := func(kind ipvs.Kind, b ipvs.Backend, weight uint32) ipvs.Op {
		return ipvs.Op{Kind: kind, Service: ipvs.Service{ID: id},
			Destination: ipvs.Destination{Backend: b, Weight: weight}}
	}
	come := &c.Before
	if late {
		come = &c.Late
	}
	for _, b := range want {
		i, found := slices.BinarySearchFunc(actual, b, func(h ipvs.Held, b ipvs.Backend) int { return h.Compare(b) })
		switch {
		case !found:
			*come = append(*come, op(ipvs.AddDestination, b, weight))
		case actual[i].Weight != weight || actual[i].Other:
			*come = append(*come, op(ipvs.EditDestination, b, weight))
		}
	}
	for _, h := range actual {
		_, wanted := slices.BinarySearchFunc(want, h.Backend, ipvs.Backend.Compare)
		switch {
		case wanted:
		case !lasts(id, h, keep):
			c.Before = append(c.Before, op(ipvs.DeleteDestination, h.Backend, 0))
		default:
			drains = true
			if h.Weight != 0 {
				c.Before = append(c.Before, op(ipvs.EditDestination, h.Backend, 0))
			}
		}
	}
	if drains {
		c.Draining = append(c.Draining, id)
	}
	return drains
}

// SPDX-License-Identifier: Apache-2.0

// Package diff says which flows open and which close between two states of a cluster, and
// which rule or policy is the cause.
//
// Verdicts and causes come from explain.Cluster. Pods that policies cannot tell apart are
// judged once. Ports are ranges inside of which no policy tells ports apart, so that
// nothing is left out between the ports that are named.
//
// It is pure: two snapshots in, a value out.
package diff

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
)

// State is one of the two states of the cluster.
type State struct {
	Snapshot *cluster.Snapshot
	// Answers are those of the snapshot.
	Answers *explain.Cluster
	// Workload names the object that made a pod, without the namespace. It only
	// shortens what is printed.
	Workload map[cluster.Key]string
}

// Options say what is compared.
type Options struct {
	// Hosts are addresses outside of the cluster.
	Hosts []netip.Addr
	// Ports are compared by the first number of each range; see Ranges.
	Ports []Range
}

// Diff is what changes between two states.
type Diff struct {
	Ports []Range
	// New and Gone are the pods that only one of the states can speak about.
	New, Gone []cluster.Key
	// Changes are sorted: what opens comes first, flows of new and gone pods last.
	Changes []Change
}

// With says to which pods a change is due.
type With string

// The reasons that are no policy.
const (
	Staying  With = ""     // both ends are in both states
	NewPods  With = "new"  // an end is new
	GonePods With = "gone" // an end is gone
)

// Change are flows that open or close for the same reason: from each of the sources to each
// of the destinations but itself, on all the ports.
type Change struct {
	// Opens is false for flows that close.
	Opens                 bool
	With                  With
	Sources, Destinations Group
	Ports                 []Range
	// Families are those in which the flows change; of a pair that has one family in
	// common only that one.
	Families []Family
	Because  []Cause
	// Flows is the number of pairs, counted once for each family and range of ports.
	Flows int

	only Family // empty if that is all families that the ends have
}

// Family is IPv4 or IPv6.
type Family string

// The families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

func families() [2]Family { return [2]Family{IPv4, IPv6} }

// Group are ends of flows.
type Group struct {
	// Text is for people.
	Text string
	// Ends are all of them: namespace/name of pods, with an address if it is not the
	// first one of its family, and addresses of hosts.
	Ends []string
}

// Compare returns what changes. The flow of a pod to itself never changes, and what two
// hosts outside say to each other is not judged.
func Compare(before, after State, o Options) (*Diff, error) {
	c := newComparer(before, after, o)
	d := &Diff{Ports: o.Ports}
	for _, e := range c.ends {
		switch {
		case e.host || e.further.IsValid():
		case !e.there(old):
			d.New = append(d.New, e.key)
		case !e.there(now):
			d.Gone = append(d.Gone, e.key)
		}
	}
	relations, err := c.relations()
	if err != nil {
		return nil, err
	}
	for _, r := range relations {
		d.Changes = append(d.Changes, c.changes(r)...)
	}
	slices.SortStableFunc(d.Changes, Change.compare)
	return d, nil
}

// Flows returns how many flows open and close.
func (d *Diff) Flows() (opens, closes int) {
	for _, c := range d.Changes {
		if c.Opens {
			opens += c.Flows
		} else {
			closes += c.Flows
		}
	}
	return opens, closes
}

// The two states.
const (
	old = iota
	now
)

// end is one end of flows in both states.
type end struct {
	key     cluster.Key // of a pod
	further netip.Addr  // an address that is not the first one of its family
	host    bool
	addrs   [2][2]netip.Addr // by state and family; invalid if there is none
	class   int
	special bool // in a class of its own
}

func (e *end) there(state int) bool {
	return e.addrs[state][0].IsValid() || e.addrs[state][1].IsValid()
}

// name is unique among ends.
func (e *end) name() string {
	switch {
	case e.host:
		return e.further.String()
	case e.further.IsValid():
		return fmt.Sprintf("%s at %s", e.key, e.further)
	}
	return e.key.String()
}

func (e *end) explain(state, family int) explain.End {
	if e.host {
		return explain.End{Addr: e.addrs[state][family]}
	}
	return explain.End{Pod: e.key, Addr: e.addrs[state][family]}
}

// comparer compares two states.
type comparer struct {
	states [2]State
	ports  []Range
	ends   []*end
	pods   [2]map[cluster.Key]*cluster.Pod
	// isolating are the policies of each end that is a pod.
	isolating map[*end]*[2]isolation
}

func newComparer(before, after State, o Options) *comparer {
	c := &comparer{states: [2]State{before, after}, ports: o.Ports, isolating: map[*end]*[2]isolation{}}
	index := map[string]*end{}
	for state, s := range c.states {
		for _, p := range s.Snapshot.Pods {
			if p.Networked() && p.Node != "" {
				c.addPod(index, state, p)
			}
		}
	}
	slices.SortFunc(c.ends, func(a, b *end) int {
		if d := a.key.Compare(b.key); d != 0 {
			return d
		}
		return a.further.Compare(b.further)
	})
	for _, a := range o.Hosts {
		e := &end{host: true, further: a}
		e.addrs[old][familyOf(a)], e.addrs[now][familyOf(a)] = a, a
		c.ends = append(c.ends, e)
	}
	c.classify()
	return c
}

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

func (c *comparer) addPod(index map[string]*end, state int, p *cluster.Pod) {
	first := &end{key: p.Key}
	for _, a := range p.IPs {
		e := first
		if first.addrs[state][familyOf(a)].IsValid() {
			e = &end{key: p.Key, further: a}
		}
		e.addrs[state][familyOf(a)] = a
		known := index[e.name()]
		if known == nil {
			known = e
			index[e.name()] = e
			c.ends = append(c.ends, e)
		}
		known.addrs[state] = e.addrs[state]
	}
}

// asked reports whether there can be a flow for the pair: a pod always reaches itself, and
// no node judges what hosts outside say to each other.
func asked(src, dst *end) bool { return src.key != dst.key && !(src.host && dst.host) }

// flows reports whether a state has a flow for a pair that is asked about.
func (c *comparer) flows(state, family int, src, dst *end) bool {
	return src.addrs[state][family].IsValid() && dst.addrs[state][family].IsValid()
}

func (c *comparer) flow(state, family, port int, src, dst *end) explain.Flow {
	return explain.Flow{Src: src.explain(state, family), Dst: dst.explain(state, family),
		Protocol: c.ports[port].Protocol, Port: c.ports[port].First}
}

// allowed returns the verdict about two ends; false for a flow that the state does not have.
func (c *comparer) allowed(state, family, port int, src, dst *end) (bool, error) {
	if !c.flows(state, family, src, dst) {
		return false, nil
	}
	v, err := c.states[state].Answers.Allowed(c.flow(state, family, port, src, dst))
	if err != nil {
		return false, fmt.Errorf("judging %s to %s: %w", src.name(), dst.name(), err)
	}
	return v, nil
}

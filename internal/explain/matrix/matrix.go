// SPDX-License-Identifier: Apache-2.0

// Package matrix says who reaches whom in a cluster: for every pair of pods, workloads or
// namespaces, and of hosts outside, which of the flows between them are allowed.
//
// Verdicts come from the compiled programs of the nodes, by explain.Cluster. Package matrix
// counts and shows them: as text for a terminal, as a value for machines, and as a page.
//
// It is pure: a snapshot in, a value out.
package matrix

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
)

// Port is a destination port that is asked about.
type Port struct {
	Protocol inet.Protocol
	Number   uint16 // 0 for protocols without ports
}

// icmp stands for all protocols that the API cannot name.
const icmp inet.Protocol = 1

// String returns the notation of the command line, as in tcp:80.
func (p Port) String() string {
	switch {
	case p.Protocol == icmp:
		return "icmp"
	case p.Number == 0:
		return p.Protocol.String()
	}
	return fmt.Sprintf("%s:%d", p.Protocol, p.Number)
}

// MarshalText returns what String returns.
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// By says what one end of a matrix is.
type By string

// The groupings.
const (
	ByPod       By = "pod"
	ByWorkload  By = "workload"
	ByNamespace By = "namespace"
)

// Options say what a matrix shows.
type Options struct {
	By By
	// Workload names the object that made a pod, without the namespace. A pod that is not
	// in it stands for itself.
	Workload map[cluster.Key]string
	// Only selects the pods that are ends; nil selects all.
	Only func(cluster.Key) bool
	// Hosts are addresses outside of the cluster.
	Hosts []netip.Addr
	Ports []Port
}

// Matrix is who reaches whom.
type Matrix struct {
	By    By
	Ports []Port
	Ends  []End
	// LeftOut are the pods that are no end, with the reason.
	LeftOut []LeftOut

	cells []Cell // by port, source and destination
}

// End is a row and a column: pods, or a host outside.
type End struct {
	// Name is namespace/name of a pod or a workload, a namespace, or an address.
	Name string
	// Pods are those of the end; none for a host.
	Pods []cluster.Key

	members []member
}

// member is one address of an end.
type member struct {
	pod  *cluster.Pod // nil for a host
	addr netip.Addr
}

func (m member) end() explain.End { return explain.EndAt(m.pod, m.addr) }

// LeftOut is a pod that a matrix does not show.
type LeftOut struct {
	Pod cluster.Key `json:"pod"`
	Why string      `json:"why"`
}

// Count says how many flows there are, one for each pair of addresses, and how many of
// them are allowed; Audited are those that are allowed only because policies are in audit mode.
type Count struct {
	Allowed int `json:"allowed"`
	Flows   int `json:"flows"`
	Audited int `json:"audited,omitempty"`
}

// Cell is the answer about one port and two ends.
type Cell struct{ IPv4, IPv6 Count }

// Build asks about all pairs. The answers must be those of the snapshot.
func Build(snap *cluster.Snapshot, answers *explain.Cluster, o Options) (*Matrix, error) {
	m := &Matrix{By: o.By, Ports: o.Ports}
	m.Ends, m.LeftOut = endsOf(snap, o)
	m.cells = make([]Cell, len(m.Ports)*len(m.Ends)*len(m.Ends))
	for p, port := range m.Ports {
		for s := range m.Ends {
			for d := range m.Ends {
				if err := fill(m.cell(p, s, d), answers, m.Ends[s].members, m.Ends[d].members, port); err != nil {
					return nil, err
				}
			}
		}
	}
	return m, nil
}

// Cell returns the answer about a port, a source and a destination, by their positions.
func (m *Matrix) Cell(port, src, dst int) Cell { return *m.cell(port, src, dst) }

func (m *Matrix) cell(port, src, dst int) *Cell {
	return &m.cells[(port*len(m.Ends)+src)*len(m.Ends)+dst]
}

func fill(c *Cell, answers *explain.Cluster, sources, destinations []member, p Port) error {
	for _, src := range sources {
		for _, dst := range destinations {
			if !asked(src, dst) {
				continue
			}
			f := explain.Flow{Src: src.end(), Dst: dst.end(), Protocol: p.Protocol, Port: p.Number}
			ok, err := answers.Allowed(f)
			audited := false
			if ok && err == nil {
				audited, err = answers.Audited(f)
			}
			if err != nil {
				return fmt.Errorf("judging %s to %s %s: %w", src.addr, dst.addr, p, err)
			}
			count := &c.IPv4
			if src.addr.Is6() {
				count = &c.IPv6
			}
			if count.Flows++; ok {
				count.Allowed++
			}
			if audited {
				count.Audited++
			}
		}
	}
	return nil
}

// asked reports whether policies can speak about the pair: a pod always reaches itself,
// and no node judges what two hosts outside say to each other.
func asked(src, dst member) bool {
	return src.addr.Is4() == dst.addr.Is4() && src.pod != dst.pod
}

// endsOf returns the ends in the order of their names, hosts last.
func endsOf(snap *cluster.Snapshot, o Options) (ends []End, left []LeftOut) {
	index := map[string]int{}
	pods := slices.SortedFunc(slices.Values(snap.Pods), func(a, b *cluster.Pod) int { return a.Key.Compare(b.Key) })
	for _, p := range pods {
		if o.Only != nil && !o.Only(p.Key) {
			continue
		}
		if why := unfit(p); why != "" {
			left = append(left, LeftOut{p.Key, why})
			continue
		}
		name := o.nameOf(p.Key)
		i, known := index[name]
		if !known {
			i = len(ends)
			index[name] = i
			ends = append(ends, End{Name: name})
		}
		ends[i].Pods = append(ends[i].Pods, p.Key)
		for _, a := range p.IPs {
			ends[i].members = append(ends[i].members, member{p, a})
		}
	}
	slices.SortStableFunc(ends, func(a, b End) int { return compareNames(a.Name, b.Name) })
	for _, a := range o.Hosts {
		ends = append(ends, End{Name: a.String(), members: []member{{addr: a}}})
	}
	return ends, left
}

func (o Options) nameOf(k cluster.Key) string {
	switch {
	case o.By == ByNamespace:
		return k.Namespace
	case o.By == ByWorkload && o.Workload[k] != "":
		return cluster.Key{Namespace: k.Namespace, Name: o.Workload[k]}.String()
	}
	return k.String()
}

// The reasons why a pod is no end.
const (
	onHost    = "it is on the network of its node: its traffic is the node's, and policies do not hold for it"
	finished  = "it is finished"
	addrless  = "it has no address"
	placeless = "it is on no node"
)

// unfit says why a pod is no end; "" if it is one.
func unfit(p *cluster.Pod) string {
	switch {
	case p.Finished:
		return finished
	case p.HostNetwork:
		return onHost
	case len(p.IPs) == 0:
		return addrless
	case p.Node == "":
		return placeless
	}
	return ""
}

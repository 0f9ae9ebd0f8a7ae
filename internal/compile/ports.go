// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
	"github.com/podwall/podwall/internal/policy"
)

const (
	// maxPorts is the number of ports and ranges that a rule may spell out; above it
	// those of a protocol become a set.
	maxPorts = 8
	// maxProduct is the number of pairs of a port and a peer that a rule may spell
	// out; above it ports become sets, too. So a rule takes about as many kernel
	// rules as it has ports and peers, and not the product.
	maxProduct = 16
)

// everyPort is the one port condition of a rule for every port of every protocol.
func everyPort() []filter.Rule { return []filter.Rule{{}} }

// portConditions turns the numbered ports of a rule, which is for so many peers,
// into conditions.
func (c *compiled) portConditions(ports []cluster.Port, peers int) []filter.Rule {
	literals := 0
	var whole [len(cluster.Protocols)]bool
	var ranges [len(cluster.Protocols)][]filter.PortRange
	for i, protocol := range cluster.Protocols {
		ranges[i], whole[i] = rangesOf(ports, protocol)
		literals += len(ranges[i])
	}
	spelled := literals <= maxPorts && (literals <= len(cluster.Protocols) || literals*peers <= maxProduct)
	var list []filter.Rule
	for i, protocol := range cluster.Protocols {
		p := filter.Protocol(protocol)
		switch {
		case whole[i]:
			list = append(list, filter.Rule{Protocol: p})
		case spelled:
			for _, r := range ranges[i] {
				list = append(list, filter.Rule{Protocol: p, Ports: r})
			}
		case len(ranges[i]) > 0:
			list = append(list, c.manyPorts(p, ranges[i]))
		}
	}
	return list
}

// rangesOf returns the merged port ranges of one protocol, or that every port
// of it matches.
func rangesOf(ports []cluster.Port, protocol cluster.Protocol) (ranges []filter.PortRange, whole bool) {
	for _, p := range ports {
		if p.Protocol != protocol {
			continue
		}
		if p.Any {
			return nil, true
		}
		ranges = append(ranges, filter.PortRange{First: p.First, Last: p.Last})
	}
	return mergePorts(ranges), false
}

// mergePorts joins ranges that overlap. Those that merely touch stay apart: a
// rule that lists 80 and 81 reads better as written.
func mergePorts(list []filter.PortRange) []filter.PortRange {
	slices.SortFunc(list, func(a, b filter.PortRange) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var merged []filter.PortRange
	for _, r := range list {
		if n := len(merged); n > 0 && r.First <= merged[n-1].Last {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// manyPorts returns one condition for ports of a protocol: a set, which rules of
// several protocols can share, or a range if they are one.
func (c *compiled) manyPorts(protocol filter.Protocol, ports []filter.PortRange) filter.Rule {
	s := filter.Set{Kind: filter.PortRanges}
	for _, p := range ports {
		s.Ranges = append(s.Ranges, filter.Range{First: filter.Element{Port: p.First}, Last: filter.Element{Port: p.Last}})
	}
	s.Ranges = mergeRanges(s.Ranges, nextPort)
	if len(s.Ranges) == 1 {
		return filter.Rule{Protocol: protocol, Ports: filter.PortRange{First: s.Ranges[0].First.Port, Last: s.Ranges[0].Last.Port}}
	}
	s.Name = "portlist-" + digest(rangeTexts(s)...)
	s.Comment = fmt.Sprintf("ports of a rule, %d ranges", len(s.Ranges))
	c.add(&setRef{set: s})
	return filter.Rule{Protocol: protocol, PortSet: s.Name}
}

// namedPorts returns the conditions for destinations and ports: the numbers are in
// the sets.
func (c *compiled) namedPorts(f filter.Family, specs []*policy.SetSpec) []filter.Rule {
	var list []filter.Rule
	for _, s := range specs {
		list = append(list, filter.Rule{Protocol: filter.Protocol(s.Protocol), DestSet: c.podSet(f, s, filter.AddrPorts)})
	}
	return list
}

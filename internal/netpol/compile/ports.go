// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/netpol/policy"
	"github.com/podwall/podwall/internal/netpol/program"
)

const (
	// maxPorts is the number of ports and ranges that a rule may list as literals; above it those
	// of a protocol become a set.
	maxPorts = 8
	// maxProduct is the number of pairs of a port and a peer that a rule may expand to; above it
	// ports become sets, too. So a rule takes about as many kernel rules as it has ports and peers,
	// not their product.
	maxProduct = 16
)

// everyPort is the one port condition of a rule for every port of every protocol.
func everyPort() []program.Rule { return []program.Rule{{}} }

// portConditions turns the numbered ports of a rule with peers peer conditions into conditions.
func (c *compiled) portConditions(ports []cluster.Port, peers int) []program.Rule {
	literals := 0
	var whole [len(cluster.Protocols)]bool
	var ranges [len(cluster.Protocols)][]inet.PortRange
	for i, protocol := range cluster.Protocols {
		ranges[i], whole[i] = rangesOf(ports, protocol)
		literals += len(ranges[i])
	}
	spelled := literals <= maxPorts && (literals <= len(cluster.Protocols) || literals*peers <= maxProduct)
	var list []program.Rule
	for i, protocol := range cluster.Protocols {
		p := inet.Protocol(protocol)
		switch {
		case whole[i]:
			list = append(list, program.Rule{Protocol: p})
		case spelled:
			for _, r := range ranges[i] {
				list = append(list, program.Rule{Protocol: p, Ports: r})
			}
		case len(ranges[i]) > 0:
			list = append(list, c.manyPorts(p, ranges[i]))
		}
	}
	return list
}

// rangesOf returns the merged port ranges of one protocol, or that every port
// of it matches.
func rangesOf(ports []cluster.Port, protocol cluster.Protocol) (ranges []inet.PortRange, whole bool) {
	for _, p := range ports {
		if p.Protocol != protocol {
			continue
		}
		if p.Any {
			return nil, true
		}
		ranges = append(ranges, inet.PortRange{First: p.First, Last: p.Last})
	}
	return mergePorts(ranges), false
}

// mergePorts joins ranges that overlap. Adjacent ones stay apart: a rule that lists 80 and 81 is
// easier to read as written.
func mergePorts(list []inet.PortRange) []inet.PortRange {
	slices.SortFunc(list, func(a, b inet.PortRange) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var merged []inet.PortRange
	for _, r := range list {
		if n := len(merged); n > 0 && r.First <= merged[n-1].Last {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// manyPorts returns one condition for ports of a protocol: a range if they form one, else a set,
// which rules of several protocols can share.
func (c *compiled) manyPorts(protocol inet.Protocol, ports []inet.PortRange) program.Rule {
	s := program.Set{Kind: inet.PortRanges}
	for _, p := range ports {
		s.Ranges = append(s.Ranges, inet.Range{First: inet.Element{Port: p.First}, Last: inet.Element{Port: p.Last}})
	}
	s.Ranges = mergeRanges(s.Ranges, nextPort)
	if len(s.Ranges) == 1 {
		r := s.Ranges[0]
		return program.Rule{Protocol: protocol, Ports: inet.PortRange{First: r.First.Port, Last: r.Last.Port}}
	}
	s.Name = "portlist-" + digest(rangeTexts(s)...)
	s.Comment = fmt.Sprintf("ports of a rule, %d ranges", len(s.Ranges))
	c.add(&setRef{set: s})
	return program.Rule{Protocol: protocol, PortSet: s.Name}
}

// namedPorts returns the conditions for destinations and ports: the port numbers are in the sets.
func (c *compiled) namedPorts(f inet.Family, specs []*policy.SetSpec) []program.Rule {
	var list []program.Rule
	for _, s := range specs {
		list = append(list, program.Rule{Protocol: inet.Protocol(s.Protocol), DestSet: c.podSet(f, s, inet.AddrPorts)})
	}
	return list
}

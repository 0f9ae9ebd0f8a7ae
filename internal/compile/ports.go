// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/filter"
)

// maxPorts is the number of single ports that a rule may spell out; above it
// they become one set of protocol and port.
const maxPorts = 8

// groupPorts turns the ports of a rule into as few conditions as possible. A
// nil port is every port of every protocol; a named port contributes its
// protocol only, since the number is in the destination set.
func (b *builder) groupPorts(ports []*cluster.Port) []filter.Rule {
	var list []filter.Rule
	singles := filter.Elements{}
	for _, protocol := range cluster.Protocols {
		ranges, any := rangesOf(ports, protocol)
		if any {
			list = append(list, filter.Rule{Protocol: filterProtocol(protocol)})
			continue
		}
		for _, r := range ranges {
			list = append(list, filter.Rule{Protocol: filterProtocol(protocol), Ports: r})
			if r.First == r.Last {
				singles = singles.With(filter.Element{Protocol: filterProtocol(protocol), Port: r.First})
			}
		}
	}
	if slices.Contains(ports, nil) {
		return []filter.Rule{{}}
	}
	if singles.Len() <= maxPorts {
		return list
	}
	list = slices.DeleteFunc(list, func(r filter.Rule) bool { return !r.Ports.Any() && r.Ports.First == r.Ports.Last })
	return append(list, filter.Rule{PortSet: b.portSet(singles)})
}

// rangesOf returns the merged port ranges of one protocol, or that every port
// of it matches.
func rangesOf(ports []*cluster.Port, protocol cluster.Protocol) (ranges []filter.PortRange, any bool) {
	for _, p := range ports {
		if p == nil || p.Protocol != protocol {
			continue
		}
		if p.Any || p.Name != "" {
			return nil, true
		}
		ranges = append(ranges, filter.PortRange{First: p.First, Last: p.Last})
	}
	return mergeRanges(ranges), false
}

// mergeRanges joins ranges that overlap. Those that merely touch stay apart: a
// rule that lists 80 and 81 reads better as written.
func mergeRanges(list []filter.PortRange) []filter.PortRange {
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

func (b *builder) portSet(elements filter.Elements) string {
	var text []string
	for _, e := range filter.Sorted(elements) {
		text = append(text, filter.ProtocolPorts.Format(e))
	}
	name := fmt.Sprintf("portlist-%s", digest(text...))
	b.sets[name] = &setRef{set: filter.Set{
		Name: name, Kind: filter.ProtocolPorts, Elements: elements,
		Comment: fmt.Sprintf("%d ports of one rule", elements.Len()),
	}}
	return name
}

// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/inet"
)

// Range are destination ports of a protocol, both ends included; 0 to 0 stands for a
// protocol without ports.
type Range struct {
	Protocol    inet.Protocol
	First, Last uint16
}

// Others stands for all protocols that the API cannot name, ICMP among them: only rules
// without ports allow them.
const Others inet.Protocol = 1

const lastPort = 65535

// String returns tcp:80, tcp:8000-8999, tcp for all ports of it, or "other protocols".
func (r Range) String() string {
	switch {
	case r.Protocol == Others:
		return "other protocols"
	case r.First <= 1 && r.Last == lastPort:
		return r.Protocol.String()
	case r.First == r.Last:
		return fmt.Sprintf("%s:%d", r.Protocol, r.First)
	}
	return fmt.Sprintf("%s:%d-%d", r.Protocol, r.First, r.Last)
}

// MarshalText returns what String returns.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Ranges returns all ports of all protocols, cut where a policy of the snapshots tells
// ports apart: inside of a range all ports have the same verdicts.
func Ranges(snaps ...*cluster.Snapshot) (list []Range) {
	for _, protocol := range cluster.Protocols {
		cuts := []int{1, lastPort + 1}
		for _, s := range snaps {
			cuts = append(cuts, cutsOf(s, protocol)...)
		}
		slices.Sort(cuts)
		cuts = slices.Compact(cuts)
		for i := range cuts[1:] {
			list = append(list, Range{inet.Protocol(protocol), uint16(cuts[i]), uint16(cuts[i+1] - 1)})
		}
	}
	return append(list, Range{Protocol: Others})
}

// cutsOf returns the first port of each range, and the first one behind it.
func cutsOf(s *cluster.Snapshot, protocol cluster.Protocol) (cuts []int) {
	names := map[string]bool{}
	for _, p := range s.Policies {
		for _, r := range slices.Concat(p.Ingress, p.Egress) {
			for _, port := range r.Ports.List {
				switch {
				case port.Protocol != protocol || port.Any:
				case port.Name != "":
					names[port.Name] = true
				default:
					cuts = append(cuts, int(port.First), int(port.Last)+1)
				}
			}
		}
	}
	for _, p := range s.Pods {
		for _, n := range p.NamedPorts() {
			if n.Protocol == protocol && names[n.Name] && n.Port > 0 {
				cuts = append(cuts, int(n.Port), int(n.Port)+1)
			}
		}
	}
	return cuts
}

// text names ranges; those that touch are one.
func text(ranges []Range) string {
	var joined []Range
	whole := 0
	for _, r := range slices.SortedFunc(slices.Values(ranges), compareRanges) {
		if n := len(joined); n > 0 && joined[n-1].Protocol == r.Protocol && int(joined[n-1].Last)+1 == int(r.First) {
			joined[n-1].Last = r.Last
			continue
		}
		joined = append(joined, r)
	}
	names := make([]string, len(joined))
	for i, r := range joined {
		if names[i] = r.String(); r.Protocol == Others || r.First <= 1 && r.Last == lastPort {
			whole++
		}
	}
	if whole == len(cluster.Protocols)+1 {
		return "every port and protocol"
	}
	return strings.Join(names, ", ")
}

func compareRanges(a, b Range) int {
	order := func(p inet.Protocol) int {
		if i := slices.Index(cluster.Protocols[:], cluster.Protocol(p)); i >= 0 {
			return i
		}
		return len(cluster.Protocols)
	}
	return cmp.Or(cmp.Compare(order(a.Protocol), order(b.Protocol)), cmp.Compare(a.First, b.First))
}

// SPDX-License-Identifier: Apache-2.0

package matrix

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Verdict sums up a cell.
type Verdict string

// The verdicts. The zero value is that of a cell without flows.
const (
	NoFlow   Verdict = ""
	Denied   Verdict = "denied"
	Allowed  Verdict = "allowed"
	IPv4Only Verdict = "IPv4 only"
	IPv6Only Verdict = "IPv6 only"
	Some     Verdict = "some"
)

// Verdict returns what is true of all flows of a cell, or Some.
func (c Cell) Verdict() Verdict {
	four, six := c.IPv4.verdict(), c.IPv6.verdict()
	switch {
	case six == NoFlow || four == six:
		return four
	case four == NoFlow:
		return six
	case four == Allowed && six == Denied:
		return IPv4Only
	case four == Denied && six == Allowed:
		return IPv6Only
	}
	return Some
}

func (n Count) verdict() Verdict {
	switch n.Allowed {
	case n.Flows:
		if n.Flows == 0 {
			return NoFlow
		}
		return Allowed
	case 0:
		return Denied
	}
	return Some
}

// total is the count of both families.
func (c Cell) total() Count {
	return c.IPv4.plus(c.IPv6)
}

func (n Count) plus(o Count) Count {
	return Count{n.Allowed + o.Allowed, n.Flows + o.Flows, n.Audited + o.Audited}
}

func (n Count) String() string { return fmt.Sprintf("%d of %d", n.Allowed, n.Flows) }

// mark is the letter of a cell; self says that both ends are one pod.
func (c Cell) mark(self bool) string {
	switch c.Verdict() {
	case Allowed:
		if c.total().Audited > 0 {
			return "a"
		}
		return "✓"
	case Denied:
		return "✗"
	case IPv4Only:
		return "4"
	case IPv6Only:
		return "6"
	case Some:
		return "~"
	}
	if self {
		return "·"
	}
	return " "
}

// auditing reports whether a flow is allowed only because of audit mode.
func (m *Matrix) auditing() bool {
	return slices.ContainsFunc(m.cells, func(c Cell) bool { return c.total().Audited > 0 })
}

// self reports whether two ends are the same pod.
func (m *Matrix) self(src, dst int) bool { return src == dst && len(m.Ends[src].Pods) == 1 }

// compareNames orders namespaces, then names inside of them.
func compareNames(a, b string) int {
	first, rest, _ := strings.Cut(a, "/")
	second, other, _ := strings.Cut(b, "/")
	return cmp.Or(cmp.Compare(first, second), cmp.Compare(rest, other))
}

// portSets puts ports together whose cells are the same.
func (m *Matrix) portSets() (sets [][]int) {
next:
	for p := range m.Ports {
		for i, set := range sets {
			if m.samePorts(set[0], p) {
				sets[i] = append(set, p)
				continue next
			}
		}
		sets = append(sets, []int{p})
	}
	return sets
}

func (m *Matrix) samePorts(a, b int) bool {
	for s := range m.Ends {
		for d := range m.Ends {
			if m.Cell(a, s, d) != m.Cell(b, s, d) {
				return false
			}
		}
	}
	return true
}

// heading names ports and counts their flows.
func (m *Matrix) heading(set []int) string {
	names := make([]string, len(set))
	for i, p := range set {
		names[i] = m.Ports[p].String()
	}
	sum := Count{}
	for s := range m.Ends {
		for d := range m.Ends {
			sum = sum.plus(m.Cell(set[0], s, d).total())
		}
	}
	text := fmt.Sprintf("%s: %s flows are allowed", strings.Join(names, ", "), sum)
	if sum.Audited > 0 {
		text += fmt.Sprintf(", %d only because of audit mode", sum.Audited)
	}
	return text
}

// Schema names the form of the JSON text.
const Schema = "podwall.matrix/v1"

type endValue struct {
	Name string   `json:"name"`
	Kind string   `json:"kind"`
	Pods []string `json:"pods,omitempty"`
}

type cellValue struct {
	Port        Port    `json:"port"`
	Source      string  `json:"source"`
	Destination string  `json:"destination"`
	Verdict     Verdict `json:"verdict"`
	IPv4        *Count  `json:"ipv4,omitempty"`
	IPv6        *Count  `json:"ipv6,omitempty"`
}

// MarshalJSON returns the form podwall.matrix/v1: ends in order, then all cells with flows
// by port, source and destination.
func (m *Matrix) MarshalJSON() ([]byte, error) {
	v := struct {
		Schema  string      `json:"schema"`
		By      By          `json:"by"`
		Ports   []Port      `json:"ports"`
		Ends    []endValue  `json:"ends"`
		Cells   []cellValue `json:"cells"`
		LeftOut []LeftOut   `json:"leftOut,omitempty"`
	}{Schema: Schema, By: m.By, Ports: m.Ports, Ends: []endValue{}, Cells: m.cellValues(), LeftOut: m.LeftOut}
	for _, e := range m.Ends {
		v.Ends = append(v.Ends, e.value(m.By))
	}
	return json.Marshal(v)
}

func (e End) value(by By) endValue {
	v := endValue{Name: e.Name, Kind: string(by)}
	if len(e.Pods) == 0 {
		v.Kind = "host"
	}
	for _, p := range e.Pods {
		v.Pods = append(v.Pods, p.String())
	}
	return v
}

func (m *Matrix) cellValues() []cellValue {
	list := []cellValue{}
	for p, port := range m.Ports {
		for s := range m.Ends {
			for d := range m.Ends {
				c := m.Cell(p, s, d)
				if c.Verdict() == NoFlow {
					continue
				}
				v := cellValue{Port: port, Source: m.Ends[s].Name, Destination: m.Ends[d].Name, Verdict: c.Verdict()}
				if c.IPv4.Flows > 0 {
					v.IPv4 = &c.IPv4
				}
				if c.IPv6.Flows > 0 {
					v.IPv6 = &c.IPv6
				}
				list = append(list, v)
			}
		}
	}
	return list
}

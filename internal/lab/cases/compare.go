// SPDX-License-Identifier: Apache-2.0

package cases

import (
	"encoding/json"
	"fmt"
	"io"
)

// Observed is what a backend found in one step, in the rows of the step.
type Observed struct {
	ID     string          `json:"id"`
	Probes []ObservedProbe `json:"probes"`
}

// ObservedProbe is the matrix of one port and protocol. A character that is
// neither '0' nor '1' was not observed.
type ObservedProbe struct {
	Port     uint16   `json:"port"`
	Protocol string   `json:"protocol"`
	Observed []string `json:"observed"`
}

// Write writes the result as one line.
func (o Observed) Write(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(o); err != nil {
		return fmt.Errorf("writing observed result of %s: %w", o.ID, err)
	}
	return nil
}

// NotObserved is the mark of a cell that a backend did not try.
const NotObserved = '-'

// Kind is the kind of a difference.
type Kind string

// The kinds. A leak is a hole, a block is an outage.
const (
	Leak  Kind = "LEAK"  // should be dropped, passed
	Block Kind = "BLOCK" // should pass, was dropped
)

// Difference is one cell whose observed verdict is not the expected one.
type Difference struct {
	ID          string `json:"id"`
	Kind        Kind   `json:"kind"`
	Src         string `json:"src"`
	Dst         string `json:"dst"`
	Protocol    string `json:"protocol"`
	Port        uint16 `json:"port"`
	Description string `json:"description,omitempty"`
}

// String returns one line for people.
func (d Difference) String() string {
	p := Probe{Protocol: d.Protocol, Port: d.Port}
	s := fmt.Sprintf("%-5s %s  %s → %s %s", d.Kind, d.ID, d.Src, d.Dst, &p)
	if d.Description != "" {
		s += "  (" + d.Description + ")"
	}
	return s
}

// Compare returns the differences, in the order of probes, rows and columns.
// Only cells count in which both the expected and the observed verdict are
// known.
func Compare(step *Step, o Observed) []Difference {
	var list []Difference
	step.cells(o, func(p *Probe, src, dst int, want, got byte) {
		if !known(want) || !known(got) || want == got {
			return
		}
		d := Difference{
			ID: step.ID, Kind: Block, Src: step.Endpoints[src], Dst: step.Endpoints[dst],
			Protocol: p.Protocol, Port: p.Port, Description: step.Description,
		}
		if got == '1' {
			d.Kind = Leak
		}
		list = append(list, d)
	})
	return list
}

// cells calls f with every cell. A probe that is missing, or has another
// shape, was not observed.
func (s *Step) cells(o Observed, f func(p *Probe, src, dst int, want, got byte)) {
	for i := range s.Probes {
		p := &s.Probes[i]
		got := o.rows(p, len(s.Endpoints))
		for src, row := range p.Expected {
			for dst := range len(row) {
				cell := byte(NotObserved)
				if got != nil {
					cell = got[src][dst]
				}
				f(p, src, dst, row[dst], cell)
			}
		}
	}
}

func (o Observed) rows(p *Probe, ends int) []string {
	for _, q := range o.Probes {
		if q.Port == p.Port && q.Protocol == p.Protocol && square(q.Observed, ends) {
			return q.Observed
		}
	}
	return nil
}

func known(cell byte) bool { return cell == '0' || cell == '1' }

// Summary counts what was compared. A run that compared nothing has no
// differences either, so it must be read as a whole.
type Summary struct {
	Steps      int `json:"steps"`
	Cells      int `json:"cells"`      // expected and observed
	Unobserved int `json:"unobserved"` // expected, not observed
	Leaks      int `json:"leaks"`
	Blocks     int `json:"blocks"`
	Failed     int `json:"failed"` // steps on which the backend gave an error
}

// Add counts one step and returns its differences.
func (s *Summary) Add(step *Step, o Observed) []Difference {
	s.Steps++
	step.cells(o, func(_ *Probe, _, _ int, want, got byte) {
		switch {
		case !known(want):
		case known(got):
			s.Cells++
		default:
			s.Unobserved++
		}
	})
	differences := Compare(step, o)
	for _, d := range differences {
		if d.Kind == Leak {
			s.Leaks++
		} else {
			s.Blocks++
		}
	}
	return differences
}

// OK reports whether everything expected was observed as expected, and there
// was something to compare.
func (s *Summary) OK() bool {
	return s.Cells > 0 && s.Unobserved == 0 && s.Leaks == 0 && s.Blocks == 0 && s.Failed == 0
}

// String returns one line for people.
func (s *Summary) String() string {
	text := fmt.Sprintf("%d steps, %d verdicts: %d LEAK, %d BLOCK", s.Steps, s.Cells, s.Leaks, s.Blocks)
	if s.Unobserved > 0 {
		text += fmt.Sprintf("; %d not observed", s.Unobserved)
	}
	if s.Failed > 0 {
		text += fmt.Sprintf("; %d steps failed", s.Failed)
	}
	return text
}

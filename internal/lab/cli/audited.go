// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/lab/trial"
)

// auditMark is the mark of flows that arrived only because policies are in audit mode.
const auditMark = "a"

// auditedFlow is one of them.
type auditedFlow struct {
	Family      string `json:"family"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Port        string `json:"port"`
}

// audit finds the flows that arrived only because policies are in audit mode.
func (v *view) audit(snap *cluster.Snapshot) error {
	c := explain.New(snap)
	v.audited = map[flow]bool{}
	for _, f := range v.flows {
		if v.answers[f].Verdict != trial.Allowed {
			continue
		}
		only, err := c.Audited(v.explained(f))
		if err != nil {
			return fmt.Errorf("explaining %s: %w", v.describe(f), err)
		}
		if only {
			v.audited[f] = true
		}
	}
	return nil
}

// auditedFlows lists them in the order in which they were asked.
func (v *view) auditedFlows() []auditedFlow {
	list := []auditedFlow{}
	for _, f := range v.flows {
		if v.audited[f] {
			list = append(list, auditedFlow{Family: f.family(), Source: v.ends[f.src].name,
				Destination: v.ends[f.dst].name, Port: v.ports[f.port].String()})
		}
	}
	return list
}

// mark is what a cell says about both families together.
func (v *view) mark(port, src, dst int) string {
	text := v.verdictMark(port, src, dst)
	audited := v.audited[flow{false, port, src, dst}] || v.audited[flow{true, port, src, dst}]
	if audited && text == glyph(trial.Allowed.String()) {
		return auditMark
	}
	return text
}

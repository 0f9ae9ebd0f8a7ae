// SPDX-License-Identifier: Apache-2.0

//go:build linux

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/podwall/podwall/internal/cluster"
	"github.com/podwall/podwall/internal/explain"
	"github.com/podwall/podwall/internal/inet"
	"github.com/podwall/podwall/internal/lab/trial"
	"github.com/podwall/podwall/internal/logging"
	"github.com/podwall/podwall/internal/terminal"
)

// maxWhy is how many denied flows are explained in text.
const maxWhy = 20

// reason is why a flow was denied.
type reason struct {
	// Families are those for which it holds.
	Families    []string             `json:"families"`
	Source      string               `json:"source"`
	Destination string               `json:"destination"`
	Port        string               `json:"port"`
	Explanation *explain.Explanation `json:"explanation"`
}

// explain explains the denied flows. A flow whose explanation says another verdict than its
// packet is a difference: the second list. faults are what was found about the manifests: a part
// of a policy that was not understood is the cause of denied flows.
func (v *view) explain(snap *cluster.Snapshot, faults []cluster.Diagnostic) (reasons []reason, differences []string,
	err error) {
	c := explain.New(snap)
	c.Report(faults)
	for _, f := range v.flows {
		a := v.answers[f]
		e, err := c.Explain(v.explained(f))
		if err != nil {
			return nil, nil, fmt.Errorf("explaining %s: %w", v.describe(f), err)
		}
		switch {
		case a.Verdict == trial.Allowed && !e.Allowed, a.Verdict == trial.Denied && e.Allowed:
			differences = append(differences,
				"WHY   "+v.describe(f)+": explained otherwise than the packet went\n"+e.String())
		case a.Verdict == trial.Denied:
			reasons = addReason(reasons, v.reason(f, e))
		}
	}
	return reasons, differences, nil
}

// explained is a flow as package explain takes it.
func (v *view) explained(f flow) explain.Flow {
	p := v.ports[f.port]
	return explain.Flow{Src: v.ends[f.src].explained(f.v6), Dst: v.ends[f.dst].explained(f.v6),
		Protocol: inet.Protocol(p.proto), Port: p.number}
}

func (e end) explained(v6 bool) explain.End {
	a, _ := e.address(v6)
	if e.pod == nil {
		return explain.End{Addr: a}
	}
	return explain.End{Pod: e.pod.Key, Addr: a}
}

func (v *view) reason(f flow, e *explain.Explanation) reason {
	return reason{Families: []string{f.family()}, Source: v.ends[f.src].name, Destination: v.ends[f.dst].name,
		Port: v.ports[f.port].String(), Explanation: e}
}

// addReason adds a reason, or a family to an equal one.
func addReason(list []reason, r reason) []reason {
	for i, known := range list {
		if known.Source == r.Source && known.Destination == r.Destination && known.Port == r.Port &&
			known.Explanation.Same(r.Explanation) {
			list[i].Families = append(list[i].Families, r.Families...)
			return list
		}
	}
	return append(list, r)
}

// printWhy prints the reasons; those of equal pods, and of pods of one workload, once.
func (r *runReport) printWhy(out io.Writer) {
	shown, left := map[string]bool{}, 0
	alike := r.alike()
	for _, why := range r.Why {
		key := fmt.Sprintf("%s > %s %s %s", alike[why.Source], alike[why.Destination], why.Port, why.Families)
		switch {
		case shown[key]:
			continue
		case len(shown) == maxWhy:
			left++
			continue
		}
		shown[key] = true
		fmt.Fprintln(out)
		for line := range strings.Lines(why.Explanation.String()) {
			fmt.Fprintln(out, terminal.Hang(logging.Plain(strings.TrimSuffix(line, "\n"))))
		}
		if len(why.Families) == 1 {
			fmt.Fprintln(out, "  for "+why.Families[0])
		}
	}
	if left > 0 {
		fmt.Fprintf(out, "\n%d more denied flows: choose with --from, --to and --probe, or take -o json.\n", left)
	}
}

// alike gives each end the name of those that are explained as one.
func (r *runReport) alike() map[string]string {
	names := map[string]string{}
	for _, g := range r.groups {
		first := r.after.ends[g[0]]
		for _, i := range g {
			e := r.after.ends[i]
			if names[e.name] = first.name; first.workload != "" {
				names[e.name] = first.namespace() + "/" + first.workload
			}
		}
	}
	return names
}
